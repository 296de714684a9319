"""The set-up: stack, bucket, network, roles, image."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from botocore.exceptions import ClientError

from starling.infra.errors import CredentialsExpired, ObjectExists, ProviderError, VersionConflict
from starling.infra.providers.aws.checkup.finding import Finding, Health, fail, ok, warn
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.images import CPU_IMAGE, GPU_IMAGE, find_image
from starling.infra.providers.aws.network import places, wants_public_addresses
from starling.infra.providers.aws.setup import SPOT_ROLE, SPOT_SERVICE, site_of
from starling.infra.providers.aws.stack import StackOutputs, read_stack, store_uri
from starling.infra.providers.aws.template import template
from starling.infra.store import open_store


def check_stack(clients: AwsClients, name: str) -> Iterator[Finding]:
    """Raises Misconfigured, with the command to run, if there is none."""
    stack = read_stack(clients, name)
    public = wants_public_addresses(places(clients, stack.vpc))
    wanted = template(site_of(clients, name), vpc=stack.vpc, public_addresses=public)
    if wanted["Outputs"]["Revision"]["Value"] == stack.revision:
        yield ok("stack", f"{name} in {clients.region}, up to date")
    else:
        fix = f"starling aws setup --region {clients.region} --stack {name} (--dry-run shows the changes)"
        yield warn("stack", f"{name} was made by another version of Starling, or its network has changed", fix)


def check_bucket(clients: AwsClients, stack: StackOutputs) -> Iterator[Finding]:
    """Conditional writes are what keeps two controllers apart: they are tried. Raises StoreError, ProviderError."""
    store = open_store(store_uri(stack.bucket, clients.region))
    key = f"doctor/{secrets.token_hex(8)}"
    version = store.create(key, b"doctor")
    try:
        refused = 0
        try:
            store.create(key, b"again")
        except ObjectExists:
            refused += 1
        store.replace(key, b"newer", version)
        try:
            store.replace(key, b"stale", version)
        except VersionConflict:
            refused += 1
    finally:
        store.delete(key)
    if refused == 2:
        yield ok("bucket", f"{store.uri}: reads, writes, and keeps the conditions of writes")
    else:
        fix = "use S3 itself, or a server that heeds If-None-Match and If-Match"
        yield fail("bucket", f"{store.uri} ignores the conditions of writes", fix)


def check_public_access(clients: AwsClients, stack: StackOutputs) -> Iterator[Finding]:
    """Raises ProviderError."""
    with clients.named(f"read the public access settings of {stack.bucket}"):
        try:
            found = clients.s3.get_public_access_block(Bucket=stack.bucket)["PublicAccessBlockConfiguration"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "NotImplemented":
                yield warn("public access", "this S3 server does not know of it", "see who reaches the server yourself")
                return
            if code != "NoSuchPublicAccessBlockConfiguration":
                raise
            found = {}
    names = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    open_ = [name for name in names if not found.get(name)]
    if not open_:
        yield ok("public access", f"{stack.bucket} is closed to the public")
    else:
        settings = ",".join(f"{name}=true" for name in names)
        fix = (
            f"aws s3api put-public-access-block --bucket {stack.bucket} --public-access-block-configuration {settings}"
        )
        yield fail("public access", f"{stack.bucket} does not block it: {', '.join(open_)}", fix)


def check_network(clients: AwsClients, stack: StackOutputs) -> Iterator[Finding]:
    """Raises Misconfigured if the VPC has no subnet."""
    found = places(clients, stack.vpc)
    zones = ", ".join(place.zone for place in found)
    cut_off = [place.zone for place in found if place.way_out is None]
    if cut_off:
        fix = (
            "give those subnets a default route to an internet gateway or NAT, or leave the zones out (provider.zones)"
        )
        yield warn("network", f"{stack.vpc}: no way to the internet from {', '.join(cut_off)}", fix)
    else:
        yield ok("network", f"{stack.vpc}: subnets in {zones}")
    if paying := [place.zone for place in found if place.pays_for_s3]:
        says = f"from {', '.join(paying)} all data goes through a NAT gateway, which takes about $0.045 for each GB"
        fix = (
            f"aws ec2 create-vpc-endpoint --region {clients.region} --vpc-id {stack.vpc} --service-name "
            f"com.amazonaws.{clients.region}.s3 --route-table-ids TABLES, those of the subnets: it costs nothing"
        )
        yield warn("way to S3", says, fix)


def check_roles(clients: AwsClients, stack: StackOutputs, name: str) -> Iterator[Finding]:
    """Raises ProviderError (NotThere if a role is gone)."""
    with clients.named(f"read instance profile {stack.instance_profile}"):
        profile = clients.iam.get_instance_profile(InstanceProfileName=stack.instance_profile)["InstanceProfile"]
    roles = [role["RoleName"] for role in profile["Roles"]]
    if roles == [stack.node_role]:
        yield ok("node role", stack.node_role)
    else:
        fix = f"starling aws teardown --stack {name} and `setup` again: somebody changed it by hand"
        yield fail("node role", f"{stack.instance_profile} holds {roles or 'no role'}, not {stack.node_role}", fix)


def check_spot_role(clients: AwsClients) -> Iterator[Finding]:
    """Raises ProviderError."""
    with clients.named(f"read role {SPOT_ROLE}"):
        try:
            clients.iam.get_role(RoleName=SPOT_ROLE)
        except clients.iam.exceptions.NoSuchEntityException:
            fix = f"aws iam create-service-linked-role --aws-service-name {SPOT_SERVICE}, or `starling aws setup`"
            yield fail("spot role", f"there is no {SPOT_ROLE}: EC2 cannot ask for spot capacity in your name", fix)
            return
    yield ok("spot role", SPOT_ROLE)


def check_images(clients: AwsClients) -> Iterator[Finding]:
    """What nodes boot from if provider.image is not given. One that is missing does not hide the other. Raises
    CredentialsExpired."""
    for name, parameter in (("GPU image", GPU_IMAGE), ("CPU image", CPU_IMAGE)):
        try:
            image = find_image(clients, parameter)
        except CredentialsExpired:
            raise
        except ProviderError as error:
            yield Finding(name=name, health=Health.FAIL, says=str(error))
        else:
            yield ok(name, f"the default is {image.id}, {image.name}; from {parameter}")
