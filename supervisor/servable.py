"""One version of one model as the manager keeps it: its slots, and what clients are told of it. Pure.

The state of a slot is private (`lifecycle`); what is published is TF Serving's ServableState, derived here and
nowhere else, so that no client can be told AVAILABLE of a version that nobody serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import lifecycle
from .devices import Device
from .lifecycle import SlotEvent, SlotState
from .process import Exit
from .restart import RestartHistory
from .transition_policy import Presence, VersionSnapshot
from .wire.ids import Incarnation, ServableId, SlotId
from .wire.messages import VersionRoute, WorkerRoute
from .wire.states import ServableState
from .wire.status import OK, Code, Status


@dataclass(slots=True)
class Slot:
    """A place for one worker, and what became of the workers that filled it. Times are monotonic seconds."""

    id: SlotId
    device: Device
    history: RestartHistory
    claim_bytes: int = 0
    """What its process may take of the device's memory, where that is accounted."""
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
    """Why the supervisor has killed, or will kill, the process."""
    gave_up: bool = False
    kill_by_s: float | None = None
    """When a process that has been told to go, and is not gone, is killed."""
    stop_sent: bool = False
    heartbeat_s: float | None = None
    restarts: int = 0
    last_exit: Exit | None = None
    ever_ready: bool = False
    served: int = 0
    served_before: int = 0
    """What earlier incarnations served."""
    load_s: float | None = None
    warmup_s: float | None = None

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
        """Nobody has let go of it."""
        return self.state not in {SlotState.STOPPED, SlotState.DRAINING}

    def route(self) -> WorkerRoute | None:
        if self.state is SlotState.READY and self.incarnation is not None:
            return WorkerRoute(self.incarnation, self.endpoint)
        return None


@dataclass(slots=True)
class Servable:
    """A version of a model: wanted or not, with its slots. `slots` is empty until the first load is due."""

    id: ServableId
    path: str
    aspired: bool = True
    fingerprint: str | None = None
    """What its files looked like when it was first wanted."""
    rolled_back: bool = False
    """It crash-looped and gave way to another version; it is not tried again while that one serves."""
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
        return any(
            slot.state is SlotState.READY and slot.ready_epoch is not None and slot.ready_epoch <= acked_epoch
            for slot in self.slots
        )

    @property
    def has_failed(self) -> bool:
        """Its first attempt, or its present one, has ended with an error: the start need not wait for it."""
        return self.is_refused or (bool(self.slots) and all(slot.error.code is not Code.OK for slot in self.slots))

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
        return VersionRoute(self.id.version, self.state, self.error.code, self.error.message, workers)


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
