"""What `offers` and `prices` print, for people and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starling.cli.output import table
from starling.infra.providers.aws.market import Quote
from starling.infra.providers.aws.on_demand_prices import OnDemandPrice
from starling.infra.providers.aws.spot_prices import History, Place
from starling.infra.records import Market

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
"""For terminals that cannot show the blocks."""
MACHINE = ["GPUs", "vCPUs", "GiB"]
SPARKLINE = 40
"""Characters."""


def offers_text(quotes: Sequence[Quote], histories: Mapping[Place, History], *, market: Market, days: int) -> str:
    """One line an offer, best first; on demand the zones of a region have one price, and one line."""
    if not quotes:
        return "nothing is on offer"
    if market is Market.ON_DEMAND:
        rows = [["type", "zones", *MACHINE, "on demand"]]
        return table(rows + [_on_demand_row(zones) for zones in _by_region(quotes)])
    rows = [["type", "zone", *MACHINE, "spot now", f"mean {days} d", f"max {days} d", "on demand", "saving", "score"]]
    return table(rows + [_spot_row(quote, histories.get((quote.instance_type.name, quote.zone))) for quote in quotes])


def offers_document(
    quotes: Sequence[Quote],
    histories: Mapping[Place, History],
    *,
    market: Market,
    gpus: int,
    days: int,
    notes: list[str],
) -> dict[str, Any]:
    """Prices in US dollars an hour, memory in GiB."""
    return {
        "market": market.value,
        "gpus": gpus,
        "history_days": days,
        "offers": [_offer(quote, histories.get((quote.instance_type.name, quote.zone))) for quote in quotes],
        "notes": notes,
    }


def prices_text(
    instance_type: str, histories: Sequence[History], on_demand: Mapping[str, OnDemandPrice], *, days: float
) -> str:
    """One line a zone; all sparklines have one scale, so that zones can be compared."""
    known = ", ".join(f"{on_demand_text(price)} in {region}" for region, price in on_demand.items())
    head = f"{instance_type}, spot prices of {days:g} days; on demand {known or 'not known'}"
    if not histories:
        return head
    low = min(history.lowest for history in histories)
    high = max(history.highest for history in histories)
    ramp = _ramp()
    scale = f"{ramp[0]} {dollars(low)} to {ramp[-1]} {dollars(high)}" if high > low else f"always {dollars(low)}"
    rows = [["zone", "now", "mean", "max", "changes", scale]]
    rows += [
        [
            history.zone,
            dollars(history.now),
            dollars(history.mean),
            dollars(history.highest),
            str(history.changes),
            sparkline(history, low, high, ramp),
        ]
        for history in histories
    ]
    return f"{head}\n{table(rows)}"


def prices_document(
    instance_type: str,
    histories: Sequence[History],
    on_demand: Mapping[str, OnDemandPrice],
    *,
    days: float,
    plot: Path | None,
    notes: list[str],
) -> dict[str, Any]:
    """Prices in US dollars an hour, times in seconds since the epoch; a price holds until the next one."""
    return {
        "instance_type": instance_type,
        "days": days,
        "zones": [
            {
                "zone": history.zone,
                "now": history.now,
                "mean": history.mean,
                "min": history.lowest,
                "max": history.highest,
                "changes": history.changes,
                "from": history.start,
                "to": history.end,
                "prices": [{"at": step.at, "price": step.price} for step in history.steps],
            }
            for history in histories
        ],
        "on_demand": {region: _on_demand(price) for region, price in on_demand.items()},
        "plot": str(plot) if plot and histories else None,
        "notes": notes,
    }


def sparkline(history: History, low: float, high: float, ramp: str = BLOCKS, width: int = SPARKLINE) -> str:
    """The mean price of each of `width` equal parts of the time, oldest first; blank where there was none yet."""
    part = (history.end - history.start) / width
    line = ""
    for number in range(width):
        since, until = history.start + number * part, history.start + (number + 1) * part
        if until <= history.steps[0].at:
            line += " "
            continue
        height = (history.mean_between(since, until) - low) / (high - low) if high > low else 0.0
        line += ramp[min(len(ramp) - 1, int(height * len(ramp)))]
    return line


def dollars(price: float | None) -> str:
    """An hourly price; spot prices have four decimals."""
    return "-" if price is None else f"${price:.4f}"


def on_demand_text(known: OnDemandPrice | None) -> str:
    """Marked if it is from the shipped table."""
    return "-" if known is None else dollars(known.price) + ("*" if known.dated else "")


def _spot_row(quote: Quote, history: History | None) -> list[str]:
    return [
        quote.instance_type.name,
        quote.zone,
        *_machine(quote),
        dollars(quote.price),
        dollars(_mean(history)),
        dollars(_highest(history)),
        on_demand_text(quote.on_demand),
        _percent(_saving(quote)),
        "-" if quote.score is None else str(quote.score),
    ]


def _by_region(quotes: Sequence[Quote]) -> list[list[Quote]]:
    """The same machine at the same price in the zones of one region."""
    found: dict[tuple[str, str, float], list[Quote]] = {}
    for quote in quotes:
        found.setdefault((quote.instance_type.name, quote.zone[:-1], quote.price), []).append(quote)
    return list(found.values())


def _on_demand_row(quotes: Sequence[Quote]) -> list[str]:
    letters = ",".join(quote.zone[-1] for quote in quotes)
    zones = f"{quotes[0].zone[:-1]}{{{letters}}}" if len(quotes) > 1 else quotes[0].zone
    return [quotes[0].instance_type.name, zones, *_machine(quotes[0]), on_demand_text(quotes[0].on_demand)]


def _machine(quote: Quote) -> list[str]:
    kind = quote.instance_type
    return [_gpus(quote), str(kind.vcpus), f"{kind.memory:g}"]


def _gpus(quote: Quote) -> str:
    kind = quote.instance_type
    return f"{kind.gpus} x {kind.gpu_model} {kind.gpu_memory:.0f} GiB" if kind.gpus else "-"


def _saving(quote: Quote) -> float | None:
    """How much of the on-demand price is saved, in percent."""
    return 100 * (1 - quote.price / quote.on_demand.price) if quote.on_demand else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _mean(history: History | None) -> float | None:
    return history.mean if history else None


def _highest(history: History | None) -> float | None:
    return history.highest if history else None


def _offer(quote: Quote, history: History | None) -> dict[str, Any]:
    kind = quote.instance_type
    return {
        "instance_type": kind.name,
        "zone": quote.zone,
        "market": quote.market.value,
        "price": quote.price,
        "gpus": kind.gpus,
        "gpu": kind.gpu_model,
        "gpu_memory": kind.gpu_memory,
        "vcpus": kind.vcpus,
        "memory": kind.memory,
        "mean": _mean(history),
        "max": _highest(history),
        "on_demand": _on_demand(quote.on_demand),
        "saving_percent": _saving(quote),
        "placement_score": quote.score,
    }


def _on_demand(known: OnDemandPrice | None) -> dict[str, Any] | None:
    return None if known is None else {"price": known.price, "table_of": known.dated}


def _ramp() -> str:
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return PLAIN
    return BLOCKS
