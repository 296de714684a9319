"""The spec's `provider` section: who sells the machines. One closed model each, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from starling.infra.providers.aws.unsupported import unsupported
from starling.orchestrator.sections import Count, NotNegative, Positive, Problems, Section


def _supported(region: str) -> str:
    if (why := unsupported(region)) is not None:
        raise ValueError(why)
    return region


Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$"), AfterValidator(_supported)]
Zone = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d[a-z]$")]
InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
FileHere = Annotated[str, Field(pattern=r"^[/~]")]
"""Controllers do not run where the spec lies, so a relative path would lead nowhere."""


HostAddress = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\])$"),
    AfterValidator(lambda address: address.strip("[]")),
]
"""A name, an IPv4 address or an IPv6 one, in brackets or not: nothing that a command line could take for an option."""
Login = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$")]


class LocalSection(Section):
    name: Literal["local"] = "local"
    """Nodes are processes on this machine."""
    price_per_hour: NotNegative = 0.0
    """What a node is pretended to cost, to try limits out."""


class AwsSection(Section):
    name: Literal["aws"]
    """Nodes are EC2 instances; `starling aws setup` comes first."""
    region: Region = "us-east-1"
    """Where instances are launched and the store lies, such as us-east-1."""
    zones: list[Zone] | None = None
    """Availability zones to choose from, such as [us-east-1a, us-east-1b]; null: all of the region."""
    same_zone: bool = True
    """Keep all nodes in one zone: talk between zones is slower, and AWS charges for it. false: more capacity to choose
    from."""
    instance_types: Annotated[list[InstanceType], Field(min_length=1)] | None = None
    """What to choose from, such as [g5.xlarge, g4dn.xlarge]; null: everything with nodes.gpus_per_node GPUs."""
    gpu_memory: Positive | None = None
    """GiB each GPU must have at least."""
    max_price: Positive | None = None
    """US dollars an hour that one node may cost at most."""
    image: Annotated[str, Field(pattern=r"^(ami-[0-9a-f]{8,17}|/[\w./-]+)$")] | None = None
    """Machine image: an AMI's id (ami-...) or an SSM parameter (/...) that holds one; null: the Deep Learning AMI,
    found by its public parameter."""
    disk: Count = 100
    """GiB of each node's encrypted volume."""
    stack: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "starling"
    """Name of the set-up that `starling aws setup` made: lower-case letters, digits and '-'."""

    @model_validator(mode="after")
    def _zones_of_the_region(self) -> AwsSection:
        strange = [zone for zone in self.zones or [] if zone[:-1] != self.region]
        if strange:
            raise Problems([("zones", f"{', '.join(strange)} is not in provider.region ({self.region})")])
        return self


class HostSection(Section):
    address: HostAddress
    """Name, IP address, or an alias in ~/.ssh/config."""
    user: Login | None = None
    """Who logs in; null: as ~/.ssh/config or this computer says."""
    private_address: HostAddress | None = None
    """How the other hosts reach it; null: by `address`."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Of its ssh server; null: as ~/.ssh/config says, else 22."""
    key: FileHere | None = None
    """File of the private key, as /... or ~/...; null: as ~/.ssh/config says, else the usual ones and the ssh
    agent's."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """How many GPUs it has."""
    python: str = "python3"
    """Python 3.11 or later on that host."""
    price_per_hour: NotNegative = 0.0
    """What it costs, for budget and ledger."""


class SshSection(Section):
    name: Literal["ssh"]
    """Nodes are hosts that you own, reached by ssh."""
    hosts: Annotated[list[HostSection], Field(min_length=1)]
    """One node a host."""
    known_hosts: FileHere | None = None
    """File of host keys that are trusted, as /... or ~/...; null: ~/.ssh/known_hosts. Unknown hosts are refused."""
    root: Annotated[str, Field(pattern=r"^[/~]")] = "~/.starling/node"
    """Folder on each host that everything is kept under, as /... or ~/..."""

    @model_validator(mode="after")
    def _each_once(self) -> SshSection:
        seen: set[tuple[str, int | None]] = set()
        for host in self.hosts:
            place = (host.address, None if host.port == 22 else host.port)
            if place in seen:
                raise Problems([("hosts", f"{host.address} is listed before; a host is one node")])
            seen.add(place)
        return self


def _tagged(value: object) -> object:
    """A name alone is a section; a section without a name is a local one."""
    if isinstance(value, str):
        return {"name": value}
    return {"name": "local", **value} if isinstance(value, dict) else value


Provider = Annotated[
    LocalSection | AwsSection | SshSection,
    Field(discriminator="name"),
    BeforeValidator(_tagged, json_schema_input_type=str | LocalSection | AwsSection | SshSection),
]
