"""What a script left in rank 0's folder when its round ended: committed, or the reason why it is not."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starling.infra.snapshots.catalog import Superseded
from starling.trainer.script.keeper import GaveUp, Keeper
from starling.trainer.script.round import FAILURE, PEER_LOST, Round
from starling.trainer.script.telling import Teller
from starling.trainer.script.trust import Trust

COMMIT_SECONDS = 600.0
"""How long the last snapshot of a round may take where no node is about to be taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unkept:
    """The newest snapshot does not hold what the folder holds."""

    reason: str
    cause: str
    """What the round of a script that has finished counts as then: it is no end of the run."""
    fatal: bool = False
    """The script would finish again, and its files would be lost again."""


def keep_leftovers(
    this: Round, keeper: Keeper, teller: Teller, cause: str, trust: Trust, heard: float
) -> Unkept | None:
    """Commit what the script left, if it can be relied on and is new. `heard`: time.monotonic() of the round's end.

    None if the newest snapshot holds what the folder holds, or the folder holds nothing.
    """
    listing = keeper.look()
    if not keeper.is_new(listing, with_logs=trust.trusted):
        return None
    if not trust.trusted:
        teller.dropped(this.number, trust.reason)
        return Unkept(reason=trust.reason, cause=FAILURE) if listing.files else None

    def give_up() -> bool:
        return this.time_is_over() or time.monotonic() - heard > COMMIT_SECONDS

    try:
        commit = keeper.commit_for_good(cause, this.number, give_up)
    except (GaveUp, Superseded) as error:
        teller.dropped(this.number, str(error))
        # Another node may have more time, or has gone on already; more time than this one had is of no use.
        others_turn = isinstance(error, Superseded) or this.time_is_over()
        return Unkept(reason=str(error), cause=PEER_LOST if others_turn else FAILURE, fatal=not others_turn)
    teller.committed(commit)
    keeper.retire(this.number)
    return None
