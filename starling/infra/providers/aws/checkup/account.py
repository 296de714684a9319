"""Credentials, clock, region, quotas: what the account brings along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.session
from botocore.exceptions import ClientError

from starling.infra.errors import NotThere
from starling.infra.providers.aws.checkup.finding import Finding, fail, ok, warn
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.regions import USABLE

SKEW_FATAL = 300.0
"""Seconds off at which AWS refuses signatures."""
SKEW_NOTICED = 30.0
SOON = 3600.0
"""Seconds of validity below which credentials are remarked on."""
EVERYWHERE = "us-east-1"
"""Enabled in every account, so that it can be asked about the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """A limit on vCPUs that run at once."""

    code: str
    what: str
    gpus: bool


QUOTAS = (
    Quota(code="L-3819A6DF", what="spot G and VT (T4, A10G, L4, L40S)", gpus=True),
    Quota(code="L-DB2E81BA", what="on-demand G and VT", gpus=True),
    Quota(code="L-7212CCBC", what="spot P2 to P4 (A100)", gpus=True),
    Quota(code="L-C4BD4855", what="spot P5 (H100, H200)", gpus=True),
    Quota(code="L-417A185B", what="on-demand P", gpus=True),
    Quota(code="L-34B43A08", what="spot standard (CPU: A, C, D, H, I, M, R, T, Z)", gpus=False),
    Quota(code="L-1216C47A", what="on-demand standard", gpus=False),
)
"""https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""


def check_credentials(clients: AwsClients) -> Iterator[Finding]:
    """Who, and until when. Raises ProviderError if there are none, or they are no good."""
    caller = clients.caller()
    if caller.arn.endswith(":root"):
        fix = "make a user or a role for yourself (IAM Identity Center) and log in as that"
        yield warn("credentials", f"{caller.arn}: the account's root user, who may do everything", fix)
    else:
        yield ok("credentials", f"{caller.arn}")
    until = _valid_until()
    if until is None:
        yield ok("validity", "these credentials do not expire; SSO or STS ones would be safer")
        return
    left = until - clients.clock.now()
    says = f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC, {left / 3600:.1f} h"
    if left < SOON:
        yield warn("validity", says, "log in again before a long run (`aws sso login`); nodes go on meanwhile")
    else:
        yield ok("validity", says)


def check_clock(clients: AwsClients) -> Iterator[Finding]:
    """Against the time in AWS's answer, also where that is a refusal. Raises ProviderError."""
    before = clients.clock.now()
    answer = _any_answer(clients)
    middle = (before + clients.clock.now()) / 2
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if header is None:
        yield warn("clock", "AWS's answer told no time", "compare this machine's clock yourself")
        return
    skew = middle - parsedate_to_datetime(header).timestamp()
    says = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} AWS's" if abs(skew) >= 2 else "agrees with AWS's"
    fix = "set this machine's clock (`timedatectl set-ntp true`): AWS refuses calls that are 5 minutes off"
    if abs(skew) >= SKEW_FATAL:
        yield fail("clock", says, fix)
    elif abs(skew) >= SKEW_NOTICED:
        yield warn("clock", says, fix)
    else:
        yield ok("clock", says)


def check_region(clients: AwsClients) -> Iterator[Finding]:
    """Whether the account may use it. Raises ProviderError."""
    region = clients.region
    with clients.named("list regions"):
        told = clients.in_region(EVERYWHERE).ec2.describe_regions(AllRegions=True)["Regions"]
    status = {found["RegionName"]: found.get("OptInStatus", USABLE[0]) for found in told}.get(region)
    if status is None:
        yield fail("region", f"there is no region {region}", "give another --region")
    elif status not in USABLE:
        fix = f"aws account enable-region --region-name {region} (takes minutes to hours)"
        yield fail("region", f"{region} is not enabled in this account", fix)
    else:
        yield ok("region", region)


def check_quotas(clients: AwsClients) -> Iterator[Finding]:
    """vCPUs that may run at once; a new account has none with GPUs. Raises ProviderError."""
    for quota in QUOTAS:
        name = f"quota {quota.code}"
        try:
            with clients.named(f"read quota {quota.code}"):
                value = clients.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)["Quota"]["Value"]
        except NotThere:  # so it is in accounts where nobody ever asked for another one
            says = f"unknown, {quota.what}: AWS tells none for this account, so its default holds, often 0"
            yield warn(name, says, _raise_quota(clients.region, quota))
            continue
        says = f"{value:.0f} vCPUs {quota.what}"
        yield ok(name, says) if value > 0 else warn(name, says, _raise_quota(clients.region, quota))


def _raise_quota(region: str, quota: Quota) -> str:
    wanted = 16 if quota.gpus else 64
    return (
        f"aws service-quotas request-service-quota-increase --region {region} --service-code ec2 "
        f"--quota-code {quota.code} --desired-value {wanted}, or https://{region}.console.aws.amazon.com/"
        f"servicequotas/home/services/ec2/quotas/{quota.code}"
    )


def _valid_until() -> float | None:
    """None: they do not expire, or do not say when."""
    credentials = botocore.session.Session().get_credentials()
    # botocore keeps it to itself; it is all there is to tell a session's end in advance.
    expiry = getattr(credentials, "_expiry_time", None)
    return expiry.timestamp() if isinstance(expiry, datetime) else None


def _any_answer(clients: AwsClients) -> dict[str, Any]:
    with clients.named("ask AWS for the time"):
        try:
            return dict(clients.sts.get_caller_identity())
        except ClientError as error:
            if "date" in error.response["ResponseMetadata"].get("HTTPHeaders", {}):
                return dict(error.response)
            raise
