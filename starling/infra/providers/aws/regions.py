"""Which regions there are, for this account."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

import botocore.session
from botocore.exceptions import BotoCoreError

from starling.infra.errors import UsageError
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.error_codes import provider_error
from starling.infra.providers.aws.unsupported import unsupported

FALLBACK_REGION = "us-east-1"
USABLE = ("opt-in-not-required", "opted-in")


def default_region() -> str:
    """The user's own setting ($AWS_REGION, $AWS_DEFAULT_REGION, the profile's), or us-east-1.
    Raises ProviderError if the profile is broken or does not exist."""
    try:
        set_up = os.environ.get("AWS_REGION") or botocore.session.Session().get_config_variable("region")
    except BotoCoreError as error:
        raise provider_error("find out the region", error) from error
    return str(set_up or FALLBACK_REGION)


def supported(region: str) -> str:
    """The same region. Raises UsageError if Starling does not go there."""
    if (why := unsupported(region)) is not None:
        raise UsageError(why)
    return region


def usable_regions(clients: AwsClients, wanted: Sequence[str] | None) -> list[str]:
    """The regions that are wanted, or with None all that the account may use.
    Raises UsageError for one that does not exist or is not enabled, and ProviderError."""
    with clients.named("list regions"):
        told = clients.ec2.describe_regions(AllRegions=True)["Regions"]
    enabled = {region["RegionName"]: region.get("OptInStatus", USABLE[0]) in USABLE for region in told}
    for name in wanted or ():
        if name not in enabled:
            close = difflib.get_close_matches(name, enabled, n=1)
            raise UsageError(f"AWS has no region {name}" + (f"; did you mean {close[0]}?" if close else ""))
        if not enabled[name]:
            raise UsageError(f"region {name} is not enabled in this account; enable it in the account's settings first")
    return list(dict.fromkeys(wanted)) if wanted is not None else sorted(name for name, on in enabled.items() if on)
