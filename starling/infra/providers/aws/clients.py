"""The one door to AWS: clients of a region that count their calls, name their errors, and take up a new login."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import CredentialsExpired, NotAuthorised
from starling.infra.providers.aws.error_codes import provider_error, refusal_kind

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_pricing import PricingClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

PRICING_REGION = "us-east-1"
"""Prices of all regions are told here."""
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
"""An instant fleet answers only once its instances are chosen."""
_TRIES = 3
_PAUSE_SECONDS = 20
"""Between two tries botocore waits at most so long."""
LONGEST_CALL_SECONDS = _TRIES * (_CONNECT_SECONDS + _READ_SECONDS) + (_TRIES - 1) * _PAUSE_SECONDS
"""A call that was begun so long ago has been answered, or given up."""
_CONFIG = Config(
    connect_timeout=_CONNECT_SECONDS,
    read_timeout=_READ_SECONDS,
    retries={"mode": "standard", "total_max_attempts": _TRIES},
    max_pool_connections=16,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Whose credentials these are."""

    account: str
    arn: str
    name: str
    """Short name: of the user, or of the role's session."""


class AwsClients:
    """boto3 clients of one region, made when first used. Thread-safe; not for use across a fork.

    Every use stands inside `named`, which turns botocore's errors into ours. After one that says that the credentials
    are no good, the next use starts from a new session, so that a new login is picked up.
    """

    def __init__(self, region: str, *, clock: Clock | None = None) -> None:
        self.region = region
        self.clock = clock or SystemClock()
        self.calls: Counter[str] = Counter()
        """Calls made so far by operation ("CreateFleet"), pages counted one by one; shared with other regions'."""
        self._lock = threading.RLock()
        self._session: botocore.session.Session | None = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._caller: Caller | None = None
        self._regions: dict[str, AwsClients] = {region: self}

    @property
    def ec2(self) -> EC2Client:
        return cast("EC2Client", self._client("ec2"))

    @property
    def sts(self) -> STSClient:
        return cast("STSClient", self._client("sts"))

    @property
    def ssm(self) -> SSMClient:
        return cast("SSMClient", self._client("ssm"))

    @property
    def sqs(self) -> SQSClient:
        return cast("SQSClient", self._client("sqs"))

    @property
    def cloudformation(self) -> CloudFormationClient:
        return cast("CloudFormationClient", self._client("cloudformation"))

    @property
    def iam(self) -> IAMClient:
        return cast("IAMClient", self._client("iam"))

    @property
    def pricing(self) -> PricingClient:
        return cast("PricingClient", self._client("pricing", PRICING_REGION))

    @property
    def quotas(self) -> ServiceQuotasClient:
        return cast("ServiceQuotasClient", self._client("service-quotas"))

    @property
    def s3(self) -> S3Client:
        """For the care of a bucket; what lies in it is the store's."""
        return cast("S3Client", self._client("s3"))

    @property
    def fis(self) -> Any:
        return self._client("fis")

    @contextmanager
    def named(self, doing: str) -> Iterator[None]:
        """Raise our errors in place of botocore's; `doing` says what was tried ("launch node x")."""
        try:
            yield
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            ours = provider_error(doing, error)
            if isinstance(ours, CredentialsExpired | NotAuthorised):
                self._forget_session()
            raise ours from error

    def in_region(self, region: str) -> AwsClients:
        """The same for another region, with the same counter."""
        with self._lock:
            if region not in self._regions:
                other = AwsClients(region, clock=self.clock)
                other.calls, other._lock, other._regions = self.calls, self._lock, self._regions
                self._regions[region] = other
            return self._regions[region]

    def caller(self) -> Caller:
        """Asked once in each session. Raises ProviderError."""
        with self._lock:  # threads that launch side by side need it all at once
            if self._caller is None:
                with self.named("see whose credentials these are"):
                    answer = self.sts.get_caller_identity()
                self._caller = Caller(account=answer["Account"], arn=answer["Arn"], name=_short_name(answer["Arn"]))
            return self._caller

    def _client(self, service: str, region: str | None = None) -> Any:
        where = region or self.region
        with self._lock:  # sessions are not thread-safe; clients are
            if (service, where) not in self._clients:
                session = self._session = self._session or self._new_session()
                self._clients[service, where] = session.create_client(service, where, config=_CONFIG)
            return self._clients[service, where]

    def _new_session(self) -> botocore.session.Session:
        session = botocore.session.Session()
        session.register_component("data_loader", _service_descriptions())
        session.register("before-call", self._count)
        events = session.get_component("event_emitter")
        events.register_first("needs-retry", _stop_at_refusal)
        return session

    def _forget_session(self) -> None:
        with self._lock:
            self._session = self._caller = None
            self._clients = {}

    def _count(self, **event: Any) -> None:
        with self._lock:
            self.calls[event["model"].name] += 1


def _short_name(arn: str) -> str:
    """The last part, such as a user's name; the role's if that part is made up anew for each session."""
    parts = arn.rpartition(":")[2].split("/")
    return parts[-2] if parts[-1].startswith("botocore-session-") else parts[-1]


def _stop_at_refusal(response: tuple[Any, dict[str, Any]] | None, operation: Any, **_: Any) -> None:
    """Some refusals come as HTTP 500, which botocore would send again and again; but they are answers."""
    parsed = response[1] if response else {}
    if refusal_kind(parsed.get("Error", {}).get("Code", "")) is not None:
        raise ClientError(cast("Any", parsed), operation.name)


@functools.cache
def _service_descriptions() -> Loader:
    """What botocore knows of each service: parsed once in a process rather than for each session."""
    return create_loader()
