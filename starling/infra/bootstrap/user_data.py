"""An instance's user data: stage 0 with its configuration filled in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from starling.infra.bootstrap import stage0
from starling.infra.errors import StarlingError

MAX_BYTES = 16 * 1024
"""EC2's limit, before base64:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html"""

_UNFILLED = "\nCONFIG: dict[str, str] = {}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class BootConfig:
    """What all nodes of a run boot from. No secret: everybody on the machine can read it."""

    store_uri: str
    region: str
    run: str
    package_sha256: str
    """Of the archive that `pack_package` put into the store."""


def user_data(config: BootConfig) -> str:
    """A script that boots any node of the run; the node learns from its instance's tags which one it is.

    A pure function of the configuration: all nodes of a run share it. Raises StarlingError if it is over EC2's limit.
    """
    script = Path(stage0.__file__).read_text(encoding="utf-8")
    # JSON with nothing but strings is Python, too.
    filled = script.replace(_UNFILLED, f"\nCONFIG: dict[str, str] = {json.dumps(asdict(config))}\n")
    if (size := len(filled.encode())) > MAX_BYTES:
        raise StarlingError(f"user data has {size} bytes, more than EC2's {MAX_BYTES}")
    return filled
