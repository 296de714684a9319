"""What happens in the region, and when: a YAML file of region minutes.

    - {at: 0, dry: {zone: us-east-1a}}
    - {at: 3m, take: {type: g5.xlarge, nodes: 1, notice: 120s}}
    - {at: 5m, throttle: 30s}

The clock starts when the rehearsed run first trains; what stands at 0 holds from the beginning. Times and durations are
the region's: how fast they pass on the wall is the driver's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from starling.infra.durations import parse_duration
from starling.infra.errors import UsageError

Seconds = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Pattern = Annotated[str, Field(min_length=1)]


def _some_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 0):
        return value
    raise ValueError(f'{value!r} is neither a whole number nor "all"')


Some = Annotated[int | Literal["all"], BeforeValidator(_some_or_all)]
Markets = Literal["spot", "on-demand", "*"]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Where(_Closed):
    """Which pools or instances; `*` fits any part of a name."""

    zone: Pattern = "*"
    type: Pattern = "*"
    market: Markets = "spot"


class Take(Where):
    """The cloud takes instances back, after a notice."""

    nodes: Some = 1
    notice: Seconds = 120.0


class Lose(Where):
    """Instances are gone at once, without a word."""

    nodes: Some = 1
    market: Markets = "*"


class Rebalance(Where):
    """Instances are recommended to leave; nothing is taken."""

    nodes: Some = 1


class Capacity(Where):
    """How many instances each pool can have at once from now on; null: any number. What runs is not touched."""

    nodes: Count | None
    code: Pattern = "InsufficientInstanceCapacity"


class Fail(_Closed):
    """Calls of one action (`*` fits any part) are answered with an error: so often, or for so long."""

    action: Pattern
    code: Pattern
    times: Count | None = None
    seconds: Annotated[Seconds | None, Field(alias="for")] = None
    message: str = ""

    @model_validator(mode="after")
    def _ends(self) -> Fail:
        if self.times is None and self.seconds is None:
            raise ValueError("say how long it lasts: `times: 3`, or `for: 2m`")
        return self


class Price(_Closed):
    """The spot price of a type in a zone moves."""

    type: Pattern
    zone: Pattern
    price: Annotated[float, Field(gt=0, strict=False)]


class Throttle(_Closed):
    """Every call is refused for so long."""

    seconds: Seconds


Action = Take | Lose | Rebalance | Capacity | Fail | Price | Throttle
KINDS: dict[str, type[_Closed]] = {
    "take": Take,
    "lose": Lose,
    "rebalance": Rebalance,
    "dry": Capacity,
    "capacity": Capacity,
    "throttle": Throttle,
    "fail": Fail,
    "price": Price,
}


class Timed(_Closed):
    """An action and its time."""

    at: float
    """Region seconds on the script's clock."""
    action: Action


Script = tuple[Timed, ...]


def read_script(path: Path) -> Script:
    """In order of time. Raises UsageError that names the entry and what would be right."""
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the region script {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the region script {path} is no YAML: {error}") from error
    return parse_script(entries, str(path))


def parse_script(entries: object, name: str) -> Script:
    """From what YAML gives; `name` is told in errors."""
    if not isinstance(entries, list):
        raise UsageError(f"{name}: a region script is a list, such as `- {{at: 3m, take: {{zone: us-east-1a}}}}`")
    timed = [_read_entry(entry, f"{name}: entry {number}") for number, entry in enumerate(entries, 1)]
    return tuple(sorted(timed, key=lambda each: each.at))


def due(script: Sequence[Timed], after: float | None, now: float) -> list[Timed]:
    """What is to be done since `after` (None: since before everything), up to and including `now`; in order."""
    return [each for each in script if (after is None or each.at > after) and each.at <= now]


def _read_entry(entry: object, where: str) -> Timed:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is {entry!r}; write it as {{at: 3m, take: {{zone: us-east-1a}}}}")
    if "at" not in entry:
        raise UsageError(f"{where} does not say when; write it as {{at: 3m, ...}}")
    kinds = [key for key in entry if key != "at"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise UsageError(f"{where} has {_listed(kinds)}; it needs exactly one of {', '.join(KINDS)}, besides `at`")
    try:
        at = TypeAdapter(Seconds).validate_python(entry["at"])
    except ValidationError as error:
        raise UsageError(f"{where}: at: {_told(error)}") from error
    kind = kinds[0]
    try:
        return Timed(at=at, action=KINDS[kind].model_validate(_body(kind, entry[kind])))  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(f"{where}: {kind}: {_told(error)}") from error


def _body(kind: str, body: Any) -> Any:
    """Short forms: `throttle: 30s`; `dry` is a capacity of none, of spot unless it says otherwise."""
    if kind == "throttle":
        return {"seconds": body}
    if kind == "dry":
        return {**(body or {}), "nodes": 0} if body is None or isinstance(body, dict) else body
    return {} if body is None else body


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such key"
    return f"{path}: {message}" if path else message


def _listed(kinds: list[Any]) -> str:
    return ", ".join(map(str, kinds)) if kinds else "nothing to do"
