"""One version of one model as the manager keeps it: its slots, and what clients are told of it. Pure.

The state of a slot is private (`lifecycle`); what is published is TF Serving's ServableState, derived here and
nowhere else, so that no client can be told AVAILABLE of a version that nobody serves.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import lifecycle
from .devices import Device
from .exits import Exit, ExitKind
from .lifecycle import LOADING, SlotEvent, SlotState
from .memory_limit import Sample
from .restart import RestartHistory
from .transition_policy import Presence, VersionSnapshot
from .wire.ids import Incarnation, ServableId, SlotId
from .wire.route_table import VersionRoute, WorkerRoute
from .wire.states import ServableState, WorkerPhase
from .wire.status import OK, Code, Status


@dataclass(slots=True)
class Slot:
    """A place for one worker, and what became of the workers that filled it. Times are monotonic seconds."""

    id: SlotId
    device: Device
    history: RestartHistory
    claim_bytes: int = 0
    """What its process may take of the device's memory, where that is accounted."""
    part: int = 0
    """Which, where the replicas of the servable divide something among themselves."""
    waits_for: str = ""
    """What keeps its process from being started on the device."""
    state: SlotState = SlotState.PENDING
    since_s: float = 0.0
    incarnation: Incarnation | None = None
    pid: int | None = None
    endpoint: str = ""
    error: Status = OK
    """Why the last incarnation did not serve, or does not any more."""
    permanent: bool = False
    load_failed: bool = False
    was_ready: bool = False
    retry_at_s: float | None = None
    ready_epoch: int | None = None
    """The first route table that named this incarnation."""
    kill_reason: str = ""
    """Why the supervisor has killed, or will kill, the process; or why that says that it could not start."""
    kill_kind: ExitKind = ExitKind.KILLED
    """What that makes of its exit."""
    failed_phase: WorkerPhase = WorkerPhase.LOADING
    """Where the load failed."""
    broken: str = ""
    """Why the process itself says that only a new one helps."""
    gave_up: bool = False
    kill_by_s: float | None = None
    """When a process that has been told to go, and is not gone, is killed."""
    stop_sent: bool = False
    heartbeat_s: float | None = None
    busy_since_s: float | None = None
    """When it began what it was executing at its last heartbeat."""
    doubted_s: float | None = None
    """Since when it has been overdue, while what it may have said is still to be read."""
    doubts: int = 0
    restarts: int = 0
    last_exit: Exit | None = None
    ever_ready: bool = False
    served: int = 0
    served_before: int = 0
    """What earlier incarnations served."""
    load_s: float | None = None
    warmup_s: float | None = None
    memory: Sample | None = None
    """What its process had last, where its model has a limit."""
    fresh_bytes: int | None = None
    """What it had when it was ready."""
    urgent: bool = False
    """Its first load need not queue behind others."""
    last_ended: Incarnation | None = None
    replaces: "Slot | None" = field(default=None, repr=False, compare=False)
    """The slot of the same place whose worker goes on serving until this one's does."""
    succeeded_by: "Slot | None" = field(default=None, repr=False, compare=False)
    """The slot of the same place that serves instead: this one drains, and is then forgotten."""

    def apply(self, event: SlotEvent, now_s: float) -> None:
        """Move by the table. Raises IllegalTransition."""
        self.state = lifecycle.reduce(self.state, event)
        self.since_s = now_s

    @property
    def holds_place(self) -> bool:
        """It has, or is going to have, a process."""
        return self.state is not SlotState.STOPPED

    @property
    def stays(self) -> bool:
        """Nobody has let go of it, and it is not there for a while only."""
        return self.replaces is None and self.state not in {SlotState.STOPPED, SlotState.DRAINING}

    def started(self, incarnation: Incarnation, endpoint: str) -> None:
        """The next process is on its way; nothing of the one before it counts for it."""
        self.incarnation, self.endpoint = incarnation, endpoint
        self.load_failed, self.permanent, self.was_ready, self.gave_up = False, False, False, False
        self.kill_by_s, self.stop_sent, self.kill_reason, self.kill_kind = None, False, "", ExitKind.KILLED
        self.failed_phase, self.broken = WorkerPhase.LOADING, ""
        if self.last_exit is not None:
            self.restarts += 1

    def try_at(self, at_s: float) -> None:
        """Somebody has looked after it: its deaths are forgotten, and the next try is then."""
        self.history.forget()
        self.permanent, self.retry_at_s = False, at_s

    def ended(self, exit_: Exit) -> None:
        """Its process is gone."""
        self.last_exit, self.last_ended = exit_, self.incarnation
        self.incarnation, self.pid, self.heartbeat_s, self.ready_epoch = None, None, None, None
        self.busy_since_s, self.doubted_s, self.doubts = None, None, 0
        self.memory, self.fresh_bytes = None, None
        self.served_before, self.served = self.served_before + self.served, 0

    def exit_kind(self, exit_: Exit) -> ExitKind:
        """Why the process of this slot ended, given how it did. To be asked before `ended`."""
        if self.broken:
            return ExitKind.CUDA_ERROR
        if self.load_failed:
            return ExitKind.WARMUP_FAILED if self.failed_phase is WorkerPhase.WARMING else ExitKind.LOAD_FAILED
        if self.kill_reason:
            return self.kill_kind
        return ExitKind.STOPPED if self.state is SlotState.DRAINING and exit_.code == 0 else exit_.kind

    def available(self, acked_epoch: int) -> bool:
        """It serves, and every frontend knows."""
        return self.state is SlotState.READY and self.ready_epoch is not None and self.ready_epoch <= acked_epoch

    @property
    def returning(self) -> bool:
        """It has served, its worker is gone, and the next is on its way or due after a wait for its deaths."""
        coming = self.state in LOADING or self.state in {SlotState.PENDING, SlotState.KILLING}
        return self.ever_ready and (coming or (self.state is SlotState.BACKOFF and not self.load_failed))

    def names(self) -> dict[str, object]:
        """What the log calls it by."""
        return {"servable": self.id.servable, "slot": self.id, "incarnation": self.incarnation}

    def route(self) -> WorkerRoute | None:
        if self.state is SlotState.READY and self.incarnation is not None:
            return WorkerRoute(self.incarnation, self.endpoint)
        return None


@dataclass(slots=True)
class Servable:
    """A version of a model: wanted or not, with its slots. `slots` is empty until the first load is due."""

    id: ServableId
    path: str
    """Where its workers load it from."""
    aspired: bool = True
    fingerprint: str | None = None
    """What its files looked like when it was first wanted."""
    rolled_back: bool = False
    """It was given up and gave way to another version; it is not tried again while that one serves."""
    slots: list[Slot] = field(default_factory=list)
    wanted_slots: int = 0
    refusal: str = ""
    """Why it has not as many slots as are wanted."""
    unsettled: bool = False
    """Some slot is missing, or is yet to be let go of."""

    def snapshot(self, acked_epoch: int) -> VersionSnapshot:
        return VersionSnapshot(self.id.version, self.aspired, self.presence, self.available(acked_epoch))

    @property
    def presence(self) -> Presence:
        """By the states of all its slots."""
        if not self.slots:
            return Presence.NEW
        states = {slot.state for slot in self.slots}
        if states == {SlotState.STOPPED}:
            return Presence.GONE
        if states <= {SlotState.STOPPED, SlotState.DRAINING}:
            return Presence.GOING
        if states <= {SlotState.FAILED, SlotState.STOPPED}:
            return Presence.FAILED
        return Presence.LIVE

    def available(self, acked_epoch: int) -> bool:
        return any(slot.available(acked_epoch) for slot in self.slots)

    def replacement(self, slot: Slot) -> Slot | None:
        """The one that is to serve instead of `slot`, where it is on its way; one that was let go of is not."""
        going = {SlotState.STOPPED, SlotState.DRAINING}
        return next((each for each in self.slots if each.replaces is slot and each.state not in going), None)

    def free_part(self, leaves: Callable[[Slot], bool]) -> int:
        """The lowest that no slot has which stays, and which does not leave as soon as there is another."""
        taken = {slot.part for slot in self.slots if slot.stays and not leaves(slot)}
        return next(part for part in itertools.count() if part not in taken)

    @property
    def has_failed(self) -> bool:
        """Its first attempt, or its present one, has ended with an error: the start need not wait for it."""
        return self.is_refused or (bool(self.slots) and all(slot.error.code is not Code.OK for slot in self.slots))

    @property
    def has_ended(self) -> bool:
        """It was given up, fits nowhere, or its processes cannot be started: a start that waits for it has failed."""
        if self.presence is not Presence.LIVE:
            return self.is_refused or self.presence is Presence.FAILED
        idle = {SlotState.FAILED, SlotState.STOPPED}
        return all(slot.history.cannot_start for slot in self.slots if slot.state not in idle)

    @property
    def keeps_its_path(self) -> bool:
        """It was, or is being, loaded from there, and can be again as far as is known."""
        return any(slot.incarnation is not None or (slot.ever_ready and not slot.load_failed) for slot in self.slots)

    @property
    def is_given_up(self) -> bool:
        """Every place of it was: what is left has been let go of, or replaces what is dead."""
        staying = [slot for slot in self.slots if slot.stays]
        return bool(staying) and all(slot.state is SlotState.FAILED for slot in staying)

    @property
    def failed_for_good(self) -> bool:
        """It was given up, and is not tried again as it is."""
        return self.is_given_up and all(slot.permanent for slot in self.slots if slot.stays)

    @property
    def was_promoted(self) -> bool:
        """It has served."""
        return any(slot.ever_ready for slot in self.slots)

    @property
    def is_good(self) -> bool:
        """It serves, or did and will again before long, as far as its deaths tell."""
        return self.presence is Presence.LIVE and any(slot.ever_ready and slot.history.is_steady for slot in self.slots)

    @property
    def is_refused(self) -> bool:
        """It fits nowhere."""
        return bool(self.refusal) and not self.slots

    @property
    def state(self) -> ServableState:
        return ServableState.END if self.is_refused else published_state([slot.state for slot in self.slots])

    @property
    def error(self) -> Status:
        """The status published with the state: OK while it is served or was unloaded in good order."""
        if self.state in {ServableState.AVAILABLE, ServableState.START, ServableState.UNLOADING}:
            return OK
        if self.presence is Presence.GONE and not any(slot.gave_up for slot in self.slots):
            return OK
        return self.first_error

    @property
    def first_error(self) -> Status:
        if self.is_refused:
            return Status(Code.RESOURCE_EXHAUSTED, self.refusal)
        return next((slot.error for slot in self.slots if slot.error.code is not Code.OK), OK)

    def route(self) -> VersionRoute:
        workers = tuple(route for slot in self.slots if (route := slot.route()) is not None)
        returning = not workers and any(slot.returning for slot in self.slots)
        return VersionRoute(self.id.version, self.state, self.error.code, self.error.message, workers, returning)


def published_state(slots: Sequence[SlotState]) -> ServableState:
    """TF Serving's state of a version whose slots are in these states (core/servable_state.h).

    A version whose only worker died goes back to LOADING, which TF Serving never does: AVAILABLE would be a lie.
    """
    states = set(slots)
    if SlotState.READY in states:
        return ServableState.AVAILABLE
    if not states:
        return ServableState.START
    if states <= {SlotState.STOPPED, SlotState.FAILED}:
        return ServableState.END
    if states <= {SlotState.DRAINING, SlotState.STOPPED, SlotState.FAILED}:
        return ServableState.UNLOADING
    return ServableState.LOADING
