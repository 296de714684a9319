"""`offers` and `prices`: what AWS sells and for how much."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from starling.cli.market_text import offers_document, offers_text, prices_document, prices_text
from starling.cli.output import emit, note, say
from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import Misconfigured, UsageError
from starling.infra.providers.aws.catalog import read_types, unknown_type
from starling.infra.providers.aws.choice import AwsChoice
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.market import Market, Quote, best_first
from starling.infra.providers.aws.on_demand_prices import OnDemandPrice, price_note, read_on_demand_prices
from starling.infra.providers.aws.regions import default_region, usable_regions
from starling.infra.providers.aws.spot_prices import KEPT_DAYS, History, Place, read_history
from starling.infra.records import Market as MarketKind

OFFERS_DAYS = 30
REGIONS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionLook:
    """What one region said."""

    region: str
    quotes: list[Quote] = field(default_factory=list)
    histories: dict[Place, History] = field(default_factory=dict)
    on_demand: dict[str, OnDemandPrice] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    misfit: str | None = None
    """Why the region has nothing of what is asked for."""


def offers_verb(
    *,
    gpus: int | None,
    gpu_memory: float | None,
    types: list[str],
    regions: str | None,
    market: str,
    as_json: bool,
) -> None:
    """Without a number of GPUs: any number for named types, else 1."""
    kind = _market(market)
    names = tuple(_split(types))
    count = gpus if gpus is not None else (0 if names else 1)
    clock = SystemClock()

    def look(clients: AwsClients) -> RegionLook:
        choice = AwsChoice(region=clients.region, instance_types=names or None, gpu_memory=gpu_memory)
        return _offers_of(clients, clock, choice, count, kind)

    looks = _in_regions(regions, look)
    quotes = best_first(quote for one in looks for quote in one.quotes)
    histories = {place: history for one in looks for place, history in one.histories.items()}
    notes = _notes(looks)
    if as_json:
        emit(offers_document(quotes, histories, market=kind, gpus=count, days=OFFERS_DAYS, notes=notes))
        return
    say(offers_text(quotes, histories, market=kind, days=OFFERS_DAYS))
    for text in notes:
        note(text)


def prices_verb(instance_type: str, *, days: float, regions: str | None, plot: Path | None, as_json: bool) -> None:
    if not 0 < days <= KEPT_DAYS:
        raise UsageError(f"--days {days:g}: EC2 keeps spot prices for {KEPT_DAYS} days; use more than 0, at most that")
    if plot is not None:
        from starling.cli.price_plot import check_plot

        check_plot(plot)
    clock = SystemClock()
    looks = _in_regions(regions, lambda clients: _prices_of(clients, clock, instance_type, days))
    histories = [one.histories[place] for one in looks for place in sorted(one.histories)]
    on_demand = {one.region: one.on_demand[instance_type] for one in looks if instance_type in one.on_demand}
    notes = _notes(looks)
    if plot is not None and histories:
        from starling.cli.price_plot import draw

        draw(plot, histories, on_demand)
    if as_json:
        emit(prices_document(instance_type, histories, on_demand, days=days, plot=plot, notes=notes))
        return
    say(prices_text(instance_type, histories, on_demand, days=days))
    for text in notes:
        note(text)
    if plot is not None:
        note(f"plot: {plot}" if histories else "no plot: there is no price to draw")


def _offers_of(clients: AwsClients, clock: Clock, choice: AwsChoice, gpus: int, kind: MarketKind) -> RegionLook:
    market = Market(clients, clock)
    try:
        quotes = market.quotes(choice, gpus, kind)
    except Misconfigured as error:
        return RegionLook(region=choice.region, misfit=str(error))
    names = sorted({quote.instance_type.name for quote in quotes})
    spot = kind is MarketKind.SPOT and names
    histories = read_history(clients, names, days=OFFERS_DAYS, now=clock.now()) if spot else {}
    return RegionLook(region=choice.region, quotes=quotes, histories=histories, notes=market.notes)


def _prices_of(clients: AwsClients, clock: Clock, name: str, days: float) -> RegionLook:
    if not read_types(clients, [name], 0):
        return RegionLook(region=clients.region, misfit=str(unknown_type(name, clients.region)))
    histories = read_history(clients, [name], days=days, now=clock.now())
    on_demand = read_on_demand_prices(clients, [name])
    absent = None if histories else f"{clients.region} has no spot price of {name}: it cannot be had on spot there"
    from_table = price_note(on_demand.by_type.values(), on_demand.trouble)
    return RegionLook(
        region=clients.region,
        histories=histories,
        on_demand=on_demand.by_type,
        notes=[text for text in (absent, from_table) if text],
    )


def _in_regions(regions: str | None, look: Callable[[AwsClients], RegionLook]) -> list[RegionLook]:
    """One look a region, at the same time. Raises UsageError if none has what is asked for."""
    home = AwsClients(default_region())
    wanted = _regions(home, regions)
    with ThreadPoolExecutor(max_workers=REGIONS_AT_ONCE) as pool:
        looks = list(pool.map(look, [home.in_region(region) for region in wanted]))
    misfits = [one.misfit for one in looks if one.misfit]
    if len(misfits) == len(looks):
        raise UsageError(misfits[0])
    return looks


def _regions(home: AwsClients, regions: str | None) -> list[str]:
    if regions is None:
        return [home.region]
    names = _split([regions])
    if not names:
        raise UsageError("--regions: name regions, such as us-east-1,eu-west-1, or all")
    return usable_regions(home, None if names == ["all"] else names)


def _market(name: str) -> MarketKind:
    try:
        return MarketKind(name)
    except ValueError:
        raise UsageError(f"--market {name}: use {' or '.join(MarketKind)}") from None


def _split(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _notes(looks: list[RegionLook]) -> list[str]:
    """Each once; what a single region lacks is only told where few were asked for."""
    lacking = [one.misfit for one in looks if one.misfit]
    few = lacking if len(lacking) <= 3 else [f"{len(lacking)} regions have nothing of what is asked for"]
    return list(dict.fromkeys([text for one in looks for text in one.notes] + few))
