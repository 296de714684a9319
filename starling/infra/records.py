"""What the store's JSON objects hold: one model an object, strict in both directions.

Times are seconds since the epoch (UTC), durations seconds, money US dollars.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from starling.infra.errors import ObjectCorrupt


class Record(BaseModel):
    """Base of everything that is written to a store as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ObjectCorrupt if these bytes are no such record."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ObjectCorrupt(f"damaged {cls.__name__} record: {error.errors()[0]['msg']}") from error

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class Market(StrEnum):
    SPOT = "spot"
    ON_DEMAND = "on-demand"


class Offer(Record):
    """Something a provider can sell."""

    provider: str
    instance_type: str
    zone: str
    market: Market
    price_per_hour: float
    gpus: int = 0
    device: str | None = None
    """What computes: the GPU's model ("A10G"), or without GPUs the family of the machine ("c7i"). An exact run keeps to
    one. None: there is but one kind."""
    gpu_memory: float = 0.0
    """GiB of one GPU."""
    on_demand_price: float | None = None
    """US dollars an hour that the same machine costs on demand; None: unknown, or there is no such market."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells offers of one provider apart."""
        return self.instance_type, self.zone, self.market.value


class Termination(Record):
    """Written before any machine is released; releasing without it is illegal."""

    at: float
    reason: str


class PriceChange(Record):
    at: float
    price_per_hour: float
    """US dollars."""


class NodeIntent(Record):
    """The controller's word about one node, created before the launch call.

    (run, slot, generation, attempt) is the client token: a stale controller's launch repeats and never adds.
    """

    node: str
    run: str
    incarnation: int
    slot: int
    generation: int
    offer: Offer
    """What was bought; until then the best of `candidates`."""
    candidates: tuple[Offer, ...] = ()
    """What the provider may choose from in this attempt, best first; empty: only `offer`."""
    attempt: int = 0
    """Counts launches of this node that were refused for certain. (node, attempt) is the client token of a launch: the
    same attempt always asks for the same candidates, and never yields a second machine."""
    instance_id: str | None = None
    """The machine, once the provider has named it."""
    wanted_at: float
    """When the controller decided to launch; a bill starts here at the earliest."""
    authorised_until: float | None
    """The node ends itself at this time; the controller may move it. None: no limit was set."""
    launched_at: float | None = None
    """When the provider started the machine, once the controller has seen it; starts its bill."""
    prices: tuple[PriceChange, ...] = ()
    """What it costs since, where the market has moved: oldest first."""
    leave: Termination | None = None
    """Asks the node to leave by itself, taking its time: another one takes over."""
    terminate: Termination | None = None
    gone_at: float | None = None
    """When the machine was found (or is known) to be gone; ends its bill."""
    gone_reason: str | None = None
    taken: bool = False
    """The provider itself took the machine, as it does with spot machines when it is short of them."""


class NodeState(StrEnum):
    BOOTING = "booting"
    """The agent runs and prepares code and data."""
    JOINING = "joining"
    """The supervisor runs; the node is not yet in a round."""
    TRAINING = "training"
    """The node is part of a round."""
    LEAVING = "leaving"
    """Announced to go, or told to stop: drains."""
    ENDED = "ended"
    """The agent's last word."""


class NoticeKind(StrEnum):
    INTERRUPTION = "interruption"
    REBALANCE = "rebalance"


class Notice(Record):
    """A warning that a node will be taken."""

    id: str
    """Hash of the notice, so that polling again cannot make a second one."""
    kind: NoticeKind
    seen_at: float
    takes_effect_at: float | None
    """When the machine will be taken; unknown for a rebalance recommendation."""


def more_urgent(known: Notice | None, found: Notice) -> Notice:
    """An announced interruption is never played down to a recommendation; of two alike the first counts."""
    if known is None or (known.kind is NoticeKind.REBALANCE and found.kind is NoticeKind.INTERRUPTION):
        return found
    return known


class Progress(Record):
    """How far training is, as the node's local rank 0 knows it."""

    at: float
    step: int
    """Steps completed."""
    total_steps: int
    epoch: int
    """Epochs completed."""
    round: int
    world_size: int
    rank: int
    loss: float | None = None
    step_seconds: float | None = None
    """Recent mean duration of a step."""
    checkpoint_step: int | None = None
    """Newest committed step this rank knows of."""
    data_wait_share: float | None = None
    """Part of this round's step time (0 to 1) for which this rank has waited for data."""
    active_at: float | None = None
    """When something last went on that is no step: a batch of an evaluation; of a script of the user's, whose steps
    nobody knows, that it printed something or changed its folder."""
    snapshot: int | None = None
    """Of a script of the user's: the newest snapshot this node knows of."""
    started: bool = True
    """False while no script has been started on this node yet: its folder is still being filled."""


class NodeEnd(Record):
    at: float
    reason: str


class NodeStatus(Record):
    """The agent's word about its own node."""

    node: str
    run: str
    state: NodeState
    at: float
    """Heartbeat."""
    booted_at: float
    address: str
    instance_id: str
    notice: Notice | None = None
    progress: Progress | None = None
    ended: NodeEnd | None = None
    unfit: str | None = None
    """Why this machine cannot serve the run (wrong device fingerprint, sick GPU), if it cannot."""


class StopRequest(Record):
    at: float
    reason: str


class RunRecord(Record):
    """The run's record; every write is conditional."""

    run: str
    created_at: float
    resumed_at: float | None = None
    """When the current incarnation began; None: with the run."""
    incarnation: int = 0
    """Counts resumes; every incarnation has its own rendezvous and its own verdict."""
    code_sha256: str | None = None
    stop: StopRequest | None = None
    """Asked for by `stop`, a limit, or the deadline; concerns the current incarnation."""
    controller: str | None = None
    """host:pid of the controller that wrote last; informative only."""
    nonce: str = ""


class RunState(StrEnum):
    PENDING = "pending"
    """No node trains yet (or any more), and there is no verdict."""
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        return self in (RunState.DONE, RunState.FAILED, RunState.STOPPED)

    @property
    def exit_code(self) -> int:
        """What a watching command exits with once the run is in this state."""
        return {RunState.DONE: 0, RunState.FAILED: 1, RunState.STOPPED: 3}.get(self, 0)


class Verdict(Record):
    """How an incarnation ended; created exactly once, by whoever is first to know."""

    state: RunState
    at: float
    by: str
    reason: str
    step: int | None = None
    traceback: str | None = None
    result: dict[str, Any] | None = None
    """For done: weights_sha256, state_sha256, checkpoint {uri, step}, metrics, exact."""


class Failure(Record):
    """One worker's own error (not a peer's loss), for the crash-loop judgement."""

    at: float
    node: str
    rank: int
    round: int
    step: int
    """Steps completed when it failed."""
    error: str
    """One line."""
    traceback: str | None = None
    fatal: bool = False
    """True if trying again cannot help."""
    machine: bool = False
    """True if the operating system refused what any healthy machine does: a full or read-only disk, a failing one."""
    content: str | None = None
    """Of a script of the user's: hash of what its folder held when the round began. The same again: no progress."""


class EventKind(StrEnum):
    RUN_CREATED = "run-created"
    RUN_RESUMED = "run-resumed"
    CONTROLLER_STARTED = "controller-started"
    DECISION = "decision"
    """The controller's reason, when it changes."""
    NODE_WANTED = "node-wanted"
    NODE_LAUNCHED = "node-launched"
    """A machine was bought: data {offer, instance_id}."""
    LAUNCH_REFUSED = "launch-refused"
    """An attempt was refused: data {attempt, kind, refusals: [{instance_type, zone, market, kind, message}]}."""
    NODE_UP = "node-up"
    NODE_NOTICE = "node-notice"
    NODE_ENDED = "node-ended"
    INTERRUPT = "interrupt"
    """A rehearsed interruption: data {kind: notice|hard, seconds}."""
    ROUND = "round"
    """A round began: data {round, world_size, nodes, resume_step, last_step, redone, source}."""
    FIRST_STEP = "first-step"
    """The first step of a round was completed: data {round, step}."""
    ROUND_ENDED = "round-ended"
    """data {round, cause: leave|join|stop|done|peer-lost|failure}. Of a broken round: written when the next begins."""
    CHECKPOINT = "checkpoint"
    """A manifest was created: data {step, seconds, bytes, uri}."""
    CHECKPOINT_SKIPPED = "checkpoint-skipped"
    """A damaged checkpoint was passed over at resume: data {step}."""
    SNAPSHOT = "snapshot"
    """A script's folder was snapshotted: data {number, why, files, bytes, uploaded_bytes, seconds, uri}."""
    SNAPSHOT_SKIPPED = "snapshot-skipped"
    """A damaged snapshot was passed over: data {number}."""
    SNAPSHOT_DELAYED = "snapshot-delayed"
    """A snapshot is due but cannot be made: the reason says what is in the way, and what helps."""
    FOLDER_DROPPED = "folder-dropped"
    """A script ended, and what it wrote since the newest snapshot may be half written: data {round}."""
    SCRIPT_ACTIVE = "script-active"
    """The script printed something or changed its folder for the first time in a round: data {round}."""
    WORKER_FAILED = "worker-failed"
    """data {step, rank, own}; own: the task raised, rather than that somebody killed the process."""
    INEXACT = "inexact"
    STOP_REQUESTED = "stop-requested"
    VERDICT = "verdict"


class Event(Record):
    """One change, with its time, subject and reason."""

    at: float
    kind: EventKind
    subject: str
    """The node, run or checkpoint it is about."""
    reason: str
    data: dict[str, Any] = {}
