"""Reconciles the versions that are aspired with the workers that run. Pure: events in, commands out, no clock.

The caller feeds what happened (polls, worker messages, exits, acknowledgements), then calls `advance`, which
recomputes everything from the whole state and returns the I/O to do. Runs in the supervisor's event loop.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import crash_report, lifecycle, memory_limit, renewals
from .arrangement import arrange
from .devices import Device
from .exits import Exit, ExitKind
from .lifecycle import LOADING, SlotEvent, SlotState
from .limits import Limits, Overdue
from .memory_limit import Sample
from .model import Model, ModelSettings
from .placement import Place, Room
from .places import Places
from .restart import Death, GiveUp, RestartHistory, RestartPolicy
from .routes import RouteBoard
from .servable import Servable, Slot
from .transition_policy import Presence, next_transition
from .turns import Turns
from .wire.flight_recorder import Recording
from .wire.ids import Incarnation, SlotId
from .wire.log import fields
from .wire.messages import (
    RouteTable,
    WorkerBroken,
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
)
from .wire.states import WorkerPhase
from .wire.status import OK, Code, NotFound, Status

log = logging.getLogger(__name__)


# How many models that are not configured any more the status goes on listing.
MAX_RETIRED_MODELS = 32
# An `advance` that comes later than this after its time means that this process stood still.
_STALL_S = 2.0
# One that is overdue has so long to be heard of: what it said may still be unread. Longer when this process is late.
_DOUBT_S = 0.25
_LATE_S = 0.15
_MAX_DOUBTS = 8
# One that dies sooner than this after it was ready, and has answered nothing, was never good.
_ON_ARRIVAL_S = 1.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker for this slot. `urgent`: it brings back what was served before, and clients wait.

    `memory_limit_bytes`: TensorFlow's part of what the process may take of the device; 0 for no limit.
    `renewal`: it is to replace one that serves. `part` of `parts`: which, where replicas divide something.
    """

    incarnation: Incarnation
    slot: SlotId
    path: str
    device: Device
    urgent: bool
    memory_limit_bytes: int = 0
    renewal: bool = False
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to finish and go; nothing is in flight on it."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL; the exit is reported as any other. `hung`: what its threads are at is worth knowing first."""

    incarnation: Incarnation
    reason: str
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this table to every frontend."""

    table: RouteTable


@dataclass(frozen=True, slots=True)
class AnnounceDeath:
    """Tell every frontend that the worker is gone, and what it was at."""

    incarnation: Incarnation
    cause: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Report:
    """Keep this crash report."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart by hand that goes on: it has ended when `slot` has, or fails to have, an incarnation after `after`."""

    slot: Slot
    after: Incarnation


Command = Spawn | Stop | Kill | Publish | AnnounceDeath | Report
WorkerMessage = WorkerHello | WorkerProgress | WorkerReady | WorkerLoadFailed | WorkerHeartbeat | WorkerBroken


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """`max_loading`: workers that load at the same time. `endpoint`: where the worker of an incarnation listens."""

    max_loading: int
    endpoint: Callable[[Incarnation], str]
    jitter: Callable[[], float]
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    limits: Limits = field(default_factory=Limits)
    places: Places = field(default_factory=Places)


class Manager:
    """The aspired-versions manager (TF Serving's `core/aspired_versions_manager.cc`), over processes."""

    def __init__(self, options: ManagerOptions) -> None:
        self._options = options
        self.models: dict[str, Model] = {}
        self.board = RouteBoard()
        self._last_incarnation = Incarnation(0)
        self._running: dict[Incarnation, Slot] = {}
        self._commands: list[Command] = []
        self._stopping = False
        self._due_s: float | None = None
        self._turns = Turns()
        self._rooms: list[Room] | None = None
        self._arranged = -1
        self._late = False

    # -- events ----------------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, ModelSettings]) -> None:
        """The models of the configuration. One that is not named any more loses all its versions."""
        for name, wanted in settings.items():
            model = self.models.setdefault(name, Model(name))
            model.configure(wanted)
            for servable in model.newest_first():
                for slot in servable.slots:
                    slot.history.policy = self._restart_policy(wanted)
        for name, model in self.models.items():
            if name not in settings and model.configured:
                model.retire()
        self._arranged = -1

    def aspire(
        self,
        name: str,
        wanted: Mapping[int, str],
        on_disk: Mapping[int, str] | None = None,
        fingerprints: Mapping[int, str] | None = None,
    ) -> None:
        """What the source of one model found: versions to serve, versions that exist (default: the same), with their
        directories, and what the files of those that failed look like now.
        """
        model = self.models.get(name)
        if model is not None and model.configured:
            model.aspire(wanted, wanted if on_disk is None else on_disk, fingerprints or {})

    def source_failed(self, name: str, error: Status) -> None:
        """The source could not look: nothing changes for this model, and only for this one."""
        model = self.models.get(name)
        if model is not None and model.configured:
            model.source_failed(error)

    def worker_message(self, incarnation: Incarnation, message: WorkerMessage, now_s: float) -> bool:
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
                    self._became_ready(slot, load_s, warmup_s)
                    self._options.places.ledger.ready(incarnation, gpu_peak_bytes, now_s)
            case WorkerLoadFailed(code, text, permanent, phase):
                slot.error, slot.permanent, slot.load_failed = Status(code, text), permanent, not slot.was_ready
                slot.failed_phase = phase
                slot.apply(SlotEvent.KILL, now_s)
                slot.kill_by_s = now_s + self._options.limits.exit_s
        return True

    def _told(self, slot: Slot, event: SlotEvent, now_s: float) -> bool:
        """Move by what a worker says. One that speaks out of turn is out of its mind, and must not harm the pool."""
        if (slot.state, event) in lifecycle.TRANSITIONS:
            slot.apply(event, now_s)
            return True
        slot.error = Status(Code.INTERNAL, f"The worker of {slot.id.servable} said {event} while {slot.state}")
        self._kill(slot, "it spoke out of turn", ExitKind.KILLED, now_s)
        return False

    def spawned(self, incarnation: Incarnation, pid: int) -> None:
        slot = self._running.get(incarnation)
        if slot is not None:
            slot.pid = pid
            self._options.places.ledger.spawned(incarnation, pid)

    def memory_used(self, incarnation: Incarnation, sample: Sample, now_s: float) -> bool:
        """What a worker's process has; whether something is to be done about it."""
        slot = self._running.get(incarnation)
        if slot is None:
            return False
        slot.memory = sample
        serves = slot.state is SlotState.READY
        if serves and slot.fresh_bytes is None:
            slot.fresh_bytes = sample.used_bytes
        verdict = memory_limit.judge(
            sample,
            fresh_bytes=slot.fresh_bytes if serves else None,
            ready_for_s=now_s - slot.since_s,
            load_s=(slot.load_s or 0.0) + (slot.warmup_s or 0.0),
        )
        if verdict is memory_limit.Verdict.OVER and not slot.kill_reason:
            reason = f"over its memory limit of {sample.limit_bytes / _MIB:.0f} MiB"
            if slot.state is SlotState.DRAINING:
                self._send_kill(slot, reason, ExitKind.MEMORY_LIMIT, now_s)
            else:
                self._kill(slot, reason, ExitKind.MEMORY_LIMIT, now_s)
            return True
        servable = self._servable(slot)
        if verdict is not memory_limit.Verdict.RENEW or slot.replaces is not None or servable.replacement(slot):
            return False
        used = f"{sample.used_bytes / _MIB:.0f} of {sample.limit_bytes / _MIB:.0f} MiB"
        log.warning("replaced before it is over its memory limit %s", fields(**self._names(slot), used=used))
        renewals.begin(servable, slot, urgent=True, now_s=now_s)
        return True

    def exited(self, incarnation: Incarnation, exit_: Exit, now_s: float) -> None:
        """A worker's process is gone; the authority on death."""
        slot = self._running.pop(incarnation, None)
        if slot is None:
            return
        why = slot.broken or slot.kill_reason
        cause = f"{exit_.cause}: {why}" if why else exit_.cause
        exit_ = exit_.explained(cause, slot.exit_kind(exit_))
        names = fields(**self._names(slot), pid=slot.pid, state=slot.state, cause=exit_.cause, kind=exit_.kind)
        log.info("worker gone %s", names)
        self.board.died(incarnation)
        self._options.places.ledger.exited(incarnation, now_s)
        self._commands.append(AnnounceDeath(incarnation, exit_.cause, exit_.recording))
        if exit_.kind is not ExitKind.STOPPED:
            self._commands.append(Report(crash_report.report(slot, exit_, now_s)))
        was, death = slot.state, _death(slot, exit_, now_s)
        slot.ended(exit_.alone())
        slot.apply(SlotEvent.EXITED, now_s)
        if was is SlotState.DRAINING:
            return
        if slot.replaces is not None:
            log.warning("replacement given up %s", fields(slot=slot.id, cause=exit_.cause, error=slot.error))
            renewals.failed(self._servable(slot), slot, exit_, now_s)
            return
        self._schedule(slot, exit_, death, now_s)

    def restart(self, name: str, version: int | None, now_s: float) -> tuple[Restart, ...]:
        """By hand: one that serves is replaced by a fresh one that is ready first, one that waits is tried now.

        What to ask `restarted` about, slot by slot. Raises NotFound.
        """
        model = self.models.get(name)
        servables = [] if model is None or not model.configured else list(model.newest_first())
        wanted = [each for each in servables if version in {None, each.id.version} and each.aspired and each.slots]
        if model is None or not wanted:
            raise NotFound(f"no worker of model {name}" + ("" if version is None else f" version {version}"))
        model.fallback = None if any(each.rolled_back for each in wanted) else model.fallback
        restarts = []
        for servable in wanted:
            servable.rolled_back = False
            for slot in list(servable.slots):
                if slot.replaces is None and slot.succeeded_by is None:
                    restarts.append(Restart(self._restart(servable, slot, now_s), self._last_incarnation))
        return tuple(restarts)

    def restarted(self, restart: Restart) -> Status | None:
        """How a restart by hand ended; None while it goes on."""
        slot, after = restart.slot, restart.after
        if slot.incarnation is not None and slot.incarnation > after:
            serves = slot.available(self.board.acked_epoch) and slot.replaces is None
            return OK if serves else None
        if slot.state is SlotState.STOPPED:
            return slot.error if slot.error != OK else Status(Code.ABORTED, f"{slot.id.servable} was unloaded")
        if slot.incarnation is None and slot.last_ended is not None and slot.last_ended > after:
            return slot.error
        return None

    # -- reconciliation --------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> list[Command]:
        """Everything that is due at `now_s`, as commands in the order in which to do them."""
        late_s = 0.0 if self._due_s is None else now_s - self._due_s
        self._late = late_s > _LATE_S
        if late_s > _STALL_S:
            self._forgive_silence(now_s)
        self._refresh_models(now_s)
        self._retry_due(now_s)
        self._kill_overdue(now_s)
        self._hand_over(now_s)
        self._rooms = None
        if not self._stopping:
            self._apply_transitions(now_s)
            self._arrange_slots(now_s)
            self._spawn_pending(now_s)
        self._forget_gone()
        table = self.board.publish(tuple(model.route() for model in self.models.values()))
        if table is not None:
            self._mark_published(table)
            self._commands.append(Publish(table))
        self._stop_released(now_s)
        self._due_s = self.next_deadline_s()
        commands, self._commands = self._commands, []
        return commands

    def next_deadline_s(self) -> float | None:
        """When `advance` must be called again though nothing happens; None when nothing is due."""
        times = [slot.retry_at_s for slot in self._slots() if slot.retry_at_s is not None]
        for slot in self._running.values():
            overdue = self._overdue(slot)
            if overdue is not None:
                times.append(overdue.at_s if slot.doubted_s is None else slot.doubted_s + _DOUBT_S)
        if self._turns.due_s is not None:
            times.append(self._turns.due_s)
        return min(times, default=None)

    def shut_down(self, now_s: float) -> None:
        """Unload everything: no frontend sends any more."""
        self._stopping = True
        for slot in self._slots():
            if slot.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                self._unload(slot, now_s)

    @property
    def settled(self) -> bool:
        """Every configured model has a version that answers, or its first attempt has failed; labelled ones alike."""
        return self._labels_settled and all(
            self.outcome(name) is not None for name, model in self.models.items() if model.configured
        )

    @property
    def answering(self) -> bool:
        """Every configured model has a version that answers, and no version with a label is still on its way."""
        return self._labels_settled and all(
            self.outcome(name) == OK for name, model in self.models.items() if model.configured
        )

    @property
    def _labels_settled(self) -> bool:
        """TF Serving takes labels at the start only for versions that are AVAILABLE, so an open port means that."""
        epoch = self.board.acked_epoch
        return all(model.labels_settled(epoch) for model in self.models.values() if model.configured)

    def startup_failure(self) -> Status | None:
        """Why TF Serving would end the start: some model was given up (server_core.cc, WaitUntilModelsAvailable)."""
        waited_for = [model for name, model in self.models.items() if model.configured and self.outcome(name) != OK]
        ended = sorted(end for model in waited_for if (end := model.ended()) is not None)
        if not ended or len(ended) < len(waited_for):
            return None
        each = "".join(f"{{{{name: {id_.name} version: {id_.version}}} due to error: {why}}}, " for id_, why in ended)
        return Status(Code.UNKNOWN, f"{len(ended)} servable(s) did not become available: {{{each}}}")

    def outcome(self, name: str) -> Status | None:
        """Whether a model answers: OK, or why not, or None while that is open. Raises KeyError for an unknown one."""
        return self.models[name].outcome(self.board.acked_epoch)

    @property
    def all_gone(self) -> bool:
        """No worker process is left."""
        return not self._running

    def serving(self) -> tuple[Incarnation, ...]:
        """Every worker that may hold requests."""
        return tuple(
            incarnation
            for incarnation, slot in self._running.items()
            if slot.state in (SlotState.READY, SlotState.DRAINING)
        )

    @property
    def places(self) -> Places:
        """The devices, and what is known of them."""
        return self._options.places

    def slot(self, incarnation: Incarnation) -> Slot | None:
        """The slot that this incarnation fills, as long as its process lives."""
        return self._running.get(incarnation)

    def ready_worker(self, name: str, version: int | None) -> Incarnation:
        """A worker that serves this version, or the newest one that is served. Raises NotFound."""
        model = self.models.get(name)
        for servable in model.newest_first() if model is not None else ():
            for slot in servable.slots:
                if version in {None, servable.id.version} and slot.route() is not None and slot.incarnation is not None:
                    return slot.incarnation
        raise NotFound(f"no worker serves model {name}" + ("" if version is None else f" version {version}"))

    # -- details ---------------------------------------------------------------------------------------------

    def _apply_transitions(self, now_s: float) -> None:
        # Only GPUs have room for so many and no more.
        short = bool(self._options.places.inventory.gpus)
        waiting = self._turns.waiting(self.models.values(), now_s) if short else ()
        for model in self.models.values():
            available = model.available_versions(self.board.acked_epoch)
            transition = next_transition(model.settings.transition, model.snapshots(self.board.acked_epoch))
            for version in transition.load if model.name not in waiting else ():
                self._place(model.servables[version], now_s)
            for version in transition.unload:
                if version in available:
                    model.left(version)
                for slot in model.servables[version].slots:
                    if slot.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                        self._unload(slot, now_s)

    def _place(self, servable: Servable, now_s: float) -> None:
        """Make the slots that it lacks, and let go of those that it is not to have any more."""
        places, settings = self._options.places, self.models[servable.id.name].settings

        def new_slot(place: Place) -> Slot:
            history = RestartHistory(self._restart_policy(settings), self._options.jitter)
            part = servable.free_part()
            return Slot(place.slot, place.device, history, place.claim_bytes, since_s=now_s, part=part)

        was, acked = servable.refusal, self.board.acked_epoch
        leaving = arrange(servable, settings, places, self._all_rooms(), new_slot=new_slot, acked_epoch=acked)
        for slot in leaving:
            self._let_go(slot, now_s)
        if servable.refusal not in {"", was}:
            log.error("not placed %s", fields(servable=servable.id, why=servable.refusal))

    def _arrange_slots(self, now_s: float) -> None:
        """Slots follow the configuration and the devices; where that could not be finished before, it goes on."""
        due = self._arranged != self._options.places.generation
        self._arranged = self._options.places.generation
        for servable in self._servables():
            if servable.aspired and servable.presence in {Presence.LIVE, Presence.FAILED}:
                if due or servable.unsettled:
                    self._place(servable, now_s)
            elif due:
                for slot in servable.slots:
                    if slot.stays and self._options.places.why_lost(slot.device):
                        self._let_go(slot, now_s)

    def _let_go(self, slot: Slot, now_s: float) -> None:
        """Unload it; nobody waits for what is in flight on a device that is lost."""
        self._unload(slot, now_s)
        lost = self._options.places.why_lost(slot.device)
        if slot.state is SlotState.DRAINING and lost:
            self._send_kill(slot, f"its device was lost: {lost}", ExitKind.KILLED, now_s)

    def _all_rooms(self) -> list[Room]:
        """The devices with what is on them, made once per `advance`."""
        if self._rooms is None:
            self._rooms = self._options.places.rooms(self._slots())
        return self._rooms

    def _spawn_pending(self, now_s: float) -> None:
        loading = sum(slot.state in LOADING for slot in self._slots())
        for servable in self._servables():
            for slot in servable.slots:
                # One that is to be brought back does not queue behind loads that are slow, or hang.
                may_load = slot.ever_ready or slot.urgent or loading < self._options.max_loading
                if slot.state is SlotState.PENDING and may_load and self._may_start(slot, now_s):
                    self._spawn(servable, slot, now_s)
                    loading += 1

    def _may_start(self, slot: Slot, now_s: float) -> bool:
        policy = self.models[slot.id.servable.name].settings.devices
        return self._options.places.may_start(slot, policy, self._all_rooms(), now_s)

    def _spawn(self, servable: Servable, slot: Slot, now_s: float) -> None:
        self._last_incarnation = incarnation = Incarnation(self._last_incarnation + 1)
        slot.started(incarnation, self._options.endpoint(incarnation))
        slot.apply(SlotEvent.SPAWN, now_s)
        self._running[incarnation] = slot
        places, policy = self._options.places, self.models[servable.id.name].settings.devices
        places.renew(slot, policy, self._all_rooms())
        places.started(slot, policy, incarnation)
        limit_bytes = places.limit_bytes(slot, policy)
        urgent, renewal = slot.ever_ready or slot.urgent, slot.replaces is not None
        parts = max(1, servable.wanted_slots)
        self._commands.append(
            Spawn(incarnation, slot.id, servable.path, slot.device, urgent, limit_bytes, renewal, slot.part, parts)
        )
        log.info("starting worker %s", fields(**self._names(slot), path=servable.path, restarts=slot.restarts))

    def _became_ready(self, slot: Slot, load_s: float, warmup_s: float) -> None:
        slot.was_ready, slot.ever_ready, slot.error = True, True, OK
        slot.load_s, slot.warmup_s = load_s, warmup_s
        slot.history.became_ready(slot.since_s)
        names = self._names(slot)
        log.info("worker ready %s", fields(**names, pid=slot.pid, load_s=f"{load_s:.3f}", warmup_s=f"{warmup_s:.3f}"))

    def _schedule(self, slot: Slot, exit_: Exit, death: Death, now_s: float) -> None:
        if not slot.load_failed:
            phase = "while serving" if slot.was_ready else "while loading"
            slot.error = Status(Code.UNAVAILABLE, f"The worker of {slot.id.servable} died {phase}: {exit_.cause}")
        replacement = self._servable(slot).replacement(slot)
        decision = slot.history.died(death, now_s)
        if isinstance(decision, GiveUp):
            slot.apply(SlotEvent.GIVE_UP, now_s)
            slot.retry_at_s, slot.gave_up = decision.retry_at_s, True
            if slot.was_ready:
                self._roll_back(slot)
            if replacement is not None:
                self._unload(replacement, now_s)
            log.error("slot failed %s", fields(slot=slot.id, reason=decision.reason, error=slot.error))
        elif replacement is not None:
            log.info("replaced %s", fields(slot=slot.id, by=replacement.incarnation, why=exit_.cause))
            renewals.take_over_from_dead(self._servable(slot), replacement, slot, now_s)
        else:
            slot.retry_at_s = decision.at_s
            log.warning(
                "slot will be tried again %s",
                fields(slot=slot.id, in_s=f"{decision.at_s - now_s:.1f}", error=slot.error),
            )

    def _refresh_models(self, now_s: float) -> None:
        """Have every model take note of what is gone; where a fallback failed, the version before it is tried again."""
        for model in self.models.values():
            model.refresh()
            for servable in model.held_back():
                servable.rolled_back = False
                for slot in servable.slots:
                    if slot.state is SlotState.FAILED and slot.retry_at_s is None and not slot.permanent:
                        slot.retry_at_s = now_s + self._options.restart.half_open_s

    def _roll_back(self, slot: Slot) -> None:
        """A version that died too often after it was promoted gives way to the last one that served."""
        good = self.models[slot.id.servable.name].roll_back(slot.id.servable.version)
        if good is not None:
            slot.retry_at_s = None
            slot.error = Status(slot.error.code, f"{slot.error.message}. Rolled back to version {good}")
            log.error("rolled back %s", fields(servable=slot.id.servable, to_version=good))

    def _forget_gone(self) -> None:
        """Keep the status bounded: of each model the newest ended versions, of the models once configured the last."""
        for servable in self._servables():
            renewals.forget_gone(servable)
        for model in self.models.values():
            model.forget_gone()
        retired = [name for name, model in self.models.items() if not model.configured and model.is_gone]
        for name in retired[: max(0, len(retired) - MAX_RETIRED_MODELS)]:
            del self.models[name]

    def _retry_due(self, now_s: float) -> None:
        for slot in self._slots():
            if slot.retry_at_s is not None and slot.retry_at_s <= now_s and not self._stopping:
                slot.retry_at_s = None
                slot.apply(SlotEvent.RETRY, now_s)

    def _forgive_silence(self, now_s: float) -> None:
        """This process itself was stopped for a while: what the workers said meanwhile is still to be read."""
        for slot in self._running.values():
            slot.heartbeat_s = now_s

    def _kill_overdue(self, now_s: float) -> None:
        for slot in self._running.values():
            overdue = self._overdue(slot)
            if overdue is None or now_s < overdue.at_s:
                slot.doubted_s, slot.doubts = None, 0
            elif self._doubts(slot, now_s):
                continue
            elif slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                kind = slot.kill_kind if slot.kill_reason else ExitKind.HANG
                self._send_kill(slot, slot.kill_reason or overdue.reason, kind, now_s)
            else:
                self._kill(slot, overdue.reason, ExitKind.HANG, now_s)

    def _doubts(self, slot: Slot, now_s: float) -> bool:
        """One that is overdue is spared for a moment, in which what it may have said is read."""
        if slot.doubted_s is None or (self._late and slot.doubts < _MAX_DOUBTS):
            slot.doubted_s, slot.doubts = now_s, slot.doubts + 1
            return True
        return now_s < slot.doubted_s + _DOUBT_S

    def _overdue(self, slot: Slot) -> Overdue | None:
        settings = self.models[slot.id.servable.name].settings
        return self._options.limits.overdue(slot, settings.run_timeout_s)

    def _restart_policy(self, settings: ModelSettings) -> RestartPolicy:
        policy = self._options.restart
        return replace(
            policy,
            max_restarts=policy.max_restarts if settings.max_restarts is None else settings.max_restarts,
            period_s=policy.period_s if settings.restart_period_s is None else settings.restart_period_s,
        )

    def _restart(self, servable: Servable, slot: Slot, now_s: float) -> Slot:
        """Have a slot restarted; the slot in which its next worker will be."""
        log.info("restart by hand %s", fields(**self._names(slot), state=slot.state))
        match slot.state:
            case SlotState.READY:
                return renewals.begin(servable, slot, urgent=False, now_s=now_s)
            case SlotState.BACKOFF | SlotState.FAILED:
                slot.history.forget()
                slot.permanent, slot.retry_at_s = False, now_s
            case SlotState.STARTING | SlotState.LOADING | SlotState.WARMING:
                slot.history.forget()
                self._kill(slot, "it was restarted by hand", ExitKind.KILLED, now_s)
        return slot

    def _hand_over(self, now_s: float) -> None:
        """Let old workers go whose replacements serve, and replacements that there is no room for."""
        for servable in self._servables():
            for slot in renewals.without_room(servable):
                log.warning("not replaced %s", fields(slot=slot.id, error=slot.error))
                self._unload(slot, now_s)
            for old in renewals.due(servable, self.board.acked_epoch):
                log.info("replaced %s", fields(**self._names(old), pid=old.pid))
                if old.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                    self._unload(old, now_s)

    def _unload(self, slot: Slot, now_s: float) -> None:
        """Let go of a slot. One that serves finishes what is in flight first, however long that takes."""
        was = slot.state
        slot.apply(SlotEvent.UNLOAD, now_s)
        slot.retry_at_s = None
        if slot.state is not SlotState.DRAINING:
            return
        log.info("draining worker %s", fields(**self._names(slot), pid=slot.pid, was=was))
        if was in LOADING:
            self._send_kill(slot, "it was not wanted any more", ExitKind.STOPPED, now_s)

    def _stop_released(self, now_s: float) -> None:
        for incarnation, slot in self._running.items():
            ready_to_go = slot.state is SlotState.DRAINING and not slot.stop_sent and not slot.kill_reason
            if ready_to_go and self.board.is_released(incarnation):
                slot.stop_sent = True
                slot.kill_by_s = now_s + self._options.limits.exit_s
                self._commands.append(Stop(incarnation))

    def _kill(self, slot: Slot, reason: str, kind: ExitKind, now_s: float) -> None:
        slot.apply(SlotEvent.KILL, now_s)
        self._send_kill(slot, reason, kind, now_s)

    def _send_kill(self, slot: Slot, reason: str, kind: ExitKind, now_s: float) -> None:
        """Kill it for its present reason; once more when that did not help."""
        hung = kind is ExitKind.HANG and not slot.kill_reason
        slot.kill_reason, slot.kill_kind = reason, kind
        slot.kill_by_s = now_s + self._options.limits.exit_s
        if slot.incarnation is not None:
            self._commands.append(Kill(slot.incarnation, reason, hung))

    def _mark_published(self, table: RouteTable) -> None:
        for slot in self._running.values():
            if slot.state is SlotState.READY and slot.ready_epoch is None:
                slot.ready_epoch = table.epoch

    def _servables(self) -> Iterable[Servable]:
        """Newest versions first, model by model: the order in which loads start."""
        for model in self.models.values():
            yield from model.newest_first()

    def _slots(self) -> Iterable[Slot]:
        for servable in self._servables():
            yield from servable.slots

    def _servable(self, slot: Slot) -> Servable:
        return self.models[slot.id.servable.name].servables[slot.id.servable.version]

    @staticmethod
    def _names(slot: Slot) -> dict[str, object]:
        return {"servable": slot.id.servable, "slot": slot.id, "incarnation": slot.incarnation}


def _death(slot: Slot, exit_: Exit, now_s: float) -> Death:
    """What the end of this slot's process means for the next try. To be asked before the slot knows."""
    if slot.load_failed:
        return Death.PERMANENT if slot.permanent else Death.LOAD_FAILED
    if exit_.kind is ExitKind.NOT_STARTED:
        return Death.NOT_STARTED
    answered = slot.served > 0 or bool(exit_.recording.finished)
    ready_for_a_while = slot.state is not SlotState.READY or now_s - slot.since_s >= _ON_ARRIVAL_S
    return Death.AFTER_READY if slot.was_ready and (answered or ready_for_a_while) else Death.BEFORE_READY
