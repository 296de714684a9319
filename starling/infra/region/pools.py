"""What the emulated cloud has to sell: room in each pool (type, zone, market), and the account's vCPU quotas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from starling.infra.records import Market

NO_CAPACITY = "InsufficientInstanceCapacity"
_ON_DEMAND_STANDARD, _SPOT_STANDARD = "L-1216C47A", "L-34B43A08"
_ON_DEMAND_G, _SPOT_G = "L-DB2E81BA", "L-3819A6DF"
_ON_DEMAND_P, _SPOT_P2_TO_P4, _SPOT_P5 = "L-417A185B", "L-7212CCBC", "L-C4BD4855"

QUOTA_NAMES = {
    _ON_DEMAND_STANDARD: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    _SPOT_STANDARD: "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    _ON_DEMAND_G: "Running On-Demand G and VT instances",
    _SPOT_G: "All G and VT Spot Instance Requests",
    _ON_DEMAND_P: "Running On-Demand P instances",
    _SPOT_P2_TO_P4: "All P4, P3 and P2 Spot Instance Requests",
    _SPOT_P5: "All P5 Spot Instance Requests",
}
"""Codes and names of the EC2 quotas that count vCPUs, of the families that a run may use."""
GENEROUS = 1024.0
"""vCPUs of each quota unless told otherwise; a new real account has 0 to 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """What can be bought: one instance type in one zone in one market."""

    instance_type: str
    zone: str
    market: Market


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why an instance of a pool cannot be had."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    instance_type: str
    zone: str
    market: str
    count: int | None
    code: str

    def fits(self, pool: Pool) -> bool:
        wanted = (pool.instance_type, pool.zone, pool.market.value)
        return all(map(fnmatchcase, wanted, (self.instance_type, self.zone, self.market)))


class Capacity:
    """How many instances each pool can have running at once; unlimited unless told otherwise."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def set(self, instance_type: str, zone: str, market: str, count: int | None, *, code: str = NO_CAPACITY) -> None:
        """From now on each pool that fits (`*` stands for anything) can have `count` instances at once; None: any
        number. What runs already is not touched. `code` is what further ones are refused with."""
        self._rules.append(_Rule(instance_type=instance_type, zone=zone, market=market, count=count, code=code))

    def limit(self, pool: Pool) -> tuple[int | None, str]:
        """How many at once, and the code of a refusal; the newest rule that fits counts."""
        for rule in reversed(self._rules):
            if rule.fits(pool):
                return rule.count, rule.code
        return None, NO_CAPACITY

    def room(self, pool: Pool, living: Iterable[Pool]) -> int | None:
        """How many more can be had now; None: any number."""
        count, _ = self.limit(pool)
        return None if count is None else max(0, count - sum(other == pool for other in living))

    def refusal(self, pool: Pool, living: Iterable[Pool]) -> Refusal | None:
        if self.room(pool, living) != 0:
            return None
        return Refusal(code=self.limit(pool)[1], message=_no_room(pool))


class Quotas:
    """The account's limits, in vCPUs running at once."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(QUOTA_NAMES, GENEROUS)
        self._untold: set[str] = set()

    def set(self, code: str, vcpus: float) -> None:
        """Such as ("L-3819A6DF", 8): two g5.xlarge of spot, and no more."""
        self._values[code] = vcpus
        self._untold.discard(code)

    def hide(self, code: str) -> None:
        """Service Quotas says that there is no such resource, as where only a quota's default holds."""
        self._untold.add(code)

    def value(self, code: str) -> float | None:
        return None if code in self._untold else self._values.get(code)

    def refusal(self, pool: Pool, living: Iterable[Pool], vcpus: Callable[[str], int]) -> Refusal | None:
        code = quota_code(pool)
        used = sum(vcpus(other.instance_type) for other in living if quota_code(other) == code)
        if code is None or used + vcpus(pool.instance_type) <= self._values[code]:
            return None
        if pool.market is Market.SPOT:
            return Refusal(code="MaxSpotInstanceCountExceeded", message="Max spot instance count exceeded")
        return Refusal(
            code="VcpuLimitExceeded",
            message="You have requested more vCPU capacity than your current vCPU limit of"
            f" {self._values[code]:.0f} allows for the instance bucket that the specified instance type belongs to.",
        )


def quota_code(pool: Pool) -> str | None:
    """The quota that an instance counts against; None: one that is not emulated."""
    # The letters before the first digit; inf, trn, dl, hpc, u- and the like have quotas of their own.
    family = re.match(r"[a-z]*", pool.instance_type).group()  # type: ignore[union-attr]
    spot = pool.market is Market.SPOT
    if family in ("g", "vt"):
        return _SPOT_G if spot else _ON_DEMAND_G
    if family == "p":
        return _spot_p(pool.instance_type) if spot else _ON_DEMAND_P
    if family in ("a", "c", "d", "h", "i", "m", "r", "t", "z", "im", "is"):
        return _SPOT_STANDARD if spot else _ON_DEMAND_STANDARD
    return None


def _spot_p(instance_type: str) -> str | None:
    """AWS's list names none for newer ones."""
    return {"p2": _SPOT_P2_TO_P4, "p3": _SPOT_P2_TO_P4, "p4": _SPOT_P2_TO_P4, "p5": _SPOT_P5}.get(instance_type[:2])


def _no_room(pool: Pool) -> str:
    if pool.market is Market.SPOT:
        return "There is no Spot capacity available that matches your request."
    return (
        f"We currently do not have sufficient {pool.instance_type} capacity in the Availability Zone you requested"
        f" ({pool.zone}). Our system will be working on provisioning additional capacity."
    )
