"""The slots that have a process, or are about to: started, listened to, told to go, killed when overdue. Pure.

Which of them are wanted is the manager's to know. Here is what one slot's process makes of it: each step is a move by
the table of `lifecycle`, and a command where something is to be done.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from . import lifecycle
from .commands import Command, Kill, Stop
from .exits import ExitKind
from .ledger import Ledger
from .lifecycle import LOADING, SlotEvent, SlotState
from .limits import Limits, Overdue
from .routes import RouteBoard
from .servable import Slot
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.states import WorkerPhase
from .wire.status import OK, Code, Status
from .wire.worker_messages import (
    WorkerBroken,
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerNotStarted,
    WorkerProgress,
    WorkerReady,
)

log = logging.getLogger(__name__)

# Looking for what is overdue later than this after its time means that this process stood still.
_STALL_S = 2.0
# One that is overdue has so long to be heard of: what it said may still be unread. Longer when this process is late.
_DOUBT_S = 0.25
_LATE_S = 0.15
_MAX_DOUBTS = 8

WorkerMessage = (
    WorkerHello | WorkerProgress | WorkerReady | WorkerLoadFailed | WorkerNotStarted | WorkerHeartbeat | WorkerBroken
)


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """`endpoint`: where the worker of an incarnation listens. `run_timeout_s`: what an execution in a slot may take."""

    endpoint: Callable[[Incarnation], str]
    limits: Limits
    run_timeout_s: Callable[[Slot], float]


class Workers:
    """All workers of a pool, and the commands about them that are yet to be done."""

    def __init__(self, rules: WorkerRules, board: RouteBoard, ledger: Ledger) -> None:
        self._rules = rules
        self._board = board
        self._ledger = ledger
        self._running: dict[Incarnation, Slot] = {}
        self._commands: list[Command] = []
        self.last_incarnation = Incarnation(0)

    def slot(self, incarnation: Incarnation) -> Slot | None:
        """The slot that this incarnation fills, as long as its process lives."""
        return self._running.get(incarnation)

    def serving(self) -> tuple[Incarnation, ...]:
        """Every worker that may hold requests."""
        return tuple(
            incarnation
            for incarnation, slot in self._running.items()
            if slot.state in (SlotState.READY, SlotState.DRAINING)
        )

    def serving_pids(self) -> dict[int, str]:
        """The processes of those, each with the name of its model."""
        slots = [self._running[incarnation] for incarnation in self.serving()]
        return {slot.pid: slot.id.servable.name for slot in slots if slot.pid is not None}

    def pressed(self, now_s: float) -> set[int]:
        """The processes of those that may be killed as hung before long."""
        timeout_s, presses = self._rules.run_timeout_s, self._rules.limits.presses
        slots = [self._running[incarnation] for incarnation in self.serving()]
        return {slot.pid for slot in slots if slot.pid is not None and presses(slot, timeout_s(slot), now_s)}

    @property
    def all_gone(self) -> bool:
        return not self._running

    def order(self, command: Command) -> None:
        """Have this done after what was ordered before."""
        self._commands.append(command)

    def take_orders(self) -> list[Command]:
        """What is to be done, in this order. Each command is given once."""
        commands, self._commands = self._commands, []
        return commands

    # -- coming ----------------------------------------------------------------------------------------------

    def start(self, slot: Slot, now_s: float) -> Incarnation:
        """The next process of this slot is asked for; its name."""
        self.last_incarnation = incarnation = Incarnation(self.last_incarnation + 1)
        slot.started(incarnation, self._rules.endpoint(incarnation))
        slot.apply(SlotEvent.SPAWN, now_s)
        self._running[incarnation] = slot
        return incarnation

    def spawned(self, incarnation: Incarnation, pid: int) -> None:
        slot = self._running.get(incarnation)
        if slot is not None:
            slot.pid = pid
            self._ledger.spawned(incarnation, pid)

    def heard(self, incarnation: Incarnation, message: WorkerMessage, now_s: float) -> bool:
        """What a worker said of itself. False when no such worker is known (its exit was seen before)."""
        slot = self._running.get(incarnation)
        if slot is None:
            return False
        slot.heartbeat_s = now_s
        match message:
            case WorkerHello(pid):
                self.spawned(incarnation, pid)
            case WorkerHeartbeat(served, in_flight, busy_s):
                slot.served, slot.busy_since_s = served, now_s - busy_s if in_flight else None
            case WorkerBroken(text):
                slot.broken = text
            case _ if slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                pass
            case WorkerProgress(phase):
                self._told(slot, SlotEvent.WARMING if phase is WorkerPhase.WARMING else SlotEvent.LOADING, now_s)
            case WorkerReady(load_s, warmup_s, gpu_peak_bytes):
                if self._told(slot, SlotEvent.READY, now_s):
                    _became_ready(slot, load_s, warmup_s)
                    self._ledger.ready(incarnation, gpu_peak_bytes, now_s)
            case WorkerLoadFailed(code, text, permanent, phase):
                slot.error, slot.permanent, slot.load_failed = Status(code, text), permanent, not slot.was_ready
                slot.failed_phase = phase
                self._expect_exit(slot, now_s)
            case WorkerNotStarted(text):
                slot.kill_reason, slot.kill_kind = text, ExitKind.NOT_STARTED
                self._expect_exit(slot, now_s)
        return True

    def _expect_exit(self, slot: Slot, now_s: float) -> None:
        """It has said that it goes."""
        slot.apply(SlotEvent.KILL, now_s)
        slot.kill_by_s = now_s + self._rules.limits.exit_s

    def _told(self, slot: Slot, event: SlotEvent, now_s: float) -> bool:
        """Move by what a worker says. One that speaks out of turn is out of its mind, and must not harm the pool."""
        if (slot.state, event) in lifecycle.TRANSITIONS:
            slot.apply(event, now_s)
            return True
        slot.error = Status(Code.INTERNAL, f"The worker of {slot.id.servable} said {event} while {slot.state}")
        self.kill(slot, "it spoke out of turn", ExitKind.KILLED, now_s)
        return False

    def published(self, epoch: int) -> None:
        """A table of this epoch names all that are ready."""
        for slot in self._running.values():
            if slot.state is SlotState.READY and slot.ready_epoch is None:
                slot.ready_epoch = epoch

    # -- going -----------------------------------------------------------------------------------------------

    def gone(self, incarnation: Incarnation, now_s: float) -> Slot | None:
        """The process is gone; the slot that it filled, None when that is known already."""
        slot = self._running.pop(incarnation, None)
        if slot is not None:
            self._board.died(incarnation)
            self._ledger.exited(incarnation, now_s)
        return slot

    def unload(self, slot: Slot, now_s: float) -> None:
        """Let go of a slot. One that serves finishes what is in flight first, however long that takes."""
        was = slot.state
        slot.apply(SlotEvent.UNLOAD, now_s)
        slot.retry_at_s = None
        if slot.state is not SlotState.DRAINING:
            return
        log.info("draining worker %s", fields(**slot.names(), pid=slot.pid, was=was))
        if was in LOADING:
            self.send_kill(slot, "it was not wanted any more", ExitKind.STOPPED, now_s)

    def stop_released(self, now_s: float) -> None:
        """Those that drain go when no frontend has a request there any more."""
        for incarnation, slot in self._running.items():
            ready_to_go = slot.state is SlotState.DRAINING and not slot.stop_sent and not slot.kill_reason
            if ready_to_go and self._board.is_released(incarnation):
                slot.stop_sent = True
                slot.kill_by_s = now_s + self._rules.limits.exit_s
                self.order(Stop(incarnation))

    def kill(self, slot: Slot, reason: str, kind: ExitKind, now_s: float) -> None:
        slot.apply(SlotEvent.KILL, now_s)
        self.send_kill(slot, reason, kind, now_s)

    def send_kill(self, slot: Slot, reason: str, kind: ExitKind, now_s: float) -> None:
        """Kill it for its present reason; once more when that did not help."""
        hung = kind is ExitKind.HANG and not slot.kill_reason
        slot.kill_reason, slot.kill_kind = reason, kind
        slot.kill_by_s = now_s + self._rules.limits.exit_s
        if slot.incarnation is not None:
            self.order(Kill(slot.incarnation, reason, hung))

    # -- too late --------------------------------------------------------------------------------------------

    def kill_overdue(self, now_s: float, late_s: float) -> None:
        """Kill those that took too long for something. `late_s`: how late this process itself is."""
        if late_s > _STALL_S:
            self._forgive_silence(now_s)
        for slot in self._running.values():
            overdue = self._overdue(slot)
            if overdue is None or now_s < overdue.at_s:
                slot.doubted_s, slot.doubts = None, 0
            elif _doubts(slot, now_s, late=late_s > _LATE_S):
                continue
            elif slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                kind = slot.kill_kind if slot.kill_reason else ExitKind.HANG
                self.send_kill(slot, slot.kill_reason or overdue.reason, kind, now_s)
            else:
                self.kill(slot, overdue.reason, ExitKind.HANG, now_s)

    def deadlines_s(self) -> list[float]:
        """When to look for the next ones that are overdue."""
        overdue = [(slot, due) for slot in self._running.values() if (due := self._overdue(slot)) is not None]
        return [due.at_s if slot.doubted_s is None else slot.doubted_s + _DOUBT_S for slot, due in overdue]

    def _forgive_silence(self, now_s: float) -> None:
        """This process itself was stopped for a while: what the workers said meanwhile is still to be read."""
        for slot in self._running.values():
            slot.heartbeat_s = now_s

    def _overdue(self, slot: Slot) -> Overdue | None:
        return self._rules.limits.overdue(slot, self._rules.run_timeout_s(slot))


def _doubts(slot: Slot, now_s: float, *, late: bool) -> bool:
    """One that is overdue is spared for a moment, in which what it may have said is read."""
    if slot.doubted_s is None or (late and slot.doubts < _MAX_DOUBTS):
        slot.doubted_s, slot.doubts = now_s, slot.doubts + 1
        return True
    return now_s < slot.doubted_s + _DOUBT_S


def _became_ready(slot: Slot, load_s: float, warmup_s: float) -> None:
    slot.was_ready, slot.ever_ready, slot.error = True, True, OK
    slot.load_s, slot.warmup_s = load_s, warmup_s
    slot.history.became_ready(slot.since_s, load_s + warmup_s)
    times = {"load_s": f"{load_s:.3f}", "warmup_s": f"{warmup_s:.3f}"}
    log.info("worker ready %s", fields(**slot.names(), pid=slot.pid, **times))
