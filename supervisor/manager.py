"""Reconciles the versions that are aspired with the workers that run. Pure: events in, commands out, no clock.

The caller feeds what happened (polls, worker messages, exits, acknowledgements), then calls `advance`, which
recomputes everything from the whole state and returns the I/O to do. Runs in the supervisor's event loop.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from . import lifecycle
from .arrangement import arrange
from .devices import Device
from .lifecycle import LOADING, SlotEvent, SlotState
from .limits import Limits
from .model import Model, ModelSettings
from .placement import Place, Room
from .places import Places
from .process import Exit
from .restart import Death, GiveUp, RestartHistory, RestartPolicy
from .routes import RouteBoard
from .servable import Servable, Slot
from .transition_policy import Presence, next_transition
from .wire.flight_recorder import NO_RECORDING, Recording
from .wire.ids import Incarnation, SlotId
from .wire.log import fields
from .wire.messages import (
    RouteTable,
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


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker for this slot. `urgent`: it brings back what was served before, and clients wait.

    `memory_limit_bytes`: TensorFlow's part of what the process may take of the device; 0 for no limit.
    """

    incarnation: Incarnation
    slot: SlotId
    path: str
    device: Device
    urgent: bool
    memory_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to finish and go; nothing is in flight on it."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL; the exit is reported as any other."""

    incarnation: Incarnation
    reason: str


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


Command = Spawn | Stop | Kill | Publish | AnnounceDeath
WorkerMessage = WorkerHello | WorkerProgress | WorkerReady | WorkerLoadFailed | WorkerHeartbeat


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
        self._last_incarnation = 0
        self._running: dict[Incarnation, Slot] = {}
        self._commands: list[Command] = []
        self._stopping = False
        self._due_s: float | None = None
        self._rooms: list[Room] | None = None
        self._arranged = -1

    # -- events ----------------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, ModelSettings]) -> None:
        """The models of the configuration. One that is not named any more loses all its versions."""
        for name, wanted in settings.items():
            self.models.setdefault(name, Model(name)).configure(wanted)
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
            case WorkerHeartbeat(served):
                slot.served = served
            case _ if slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                pass
            case WorkerProgress(phase):
                self._told(slot, SlotEvent.WARMING if phase is WorkerPhase.WARMING else SlotEvent.LOADING, now_s)
            case WorkerReady(load_s, warmup_s, gpu_peak_bytes):
                if self._told(slot, SlotEvent.READY, now_s):
                    self._became_ready(slot, load_s, warmup_s)
                    self._options.places.ledger.ready(incarnation, gpu_peak_bytes, now_s)
            case WorkerLoadFailed(code, text, permanent):
                slot.error, slot.permanent, slot.load_failed = Status(code, text), permanent, not slot.was_ready
                slot.apply(SlotEvent.KILL, now_s)
                slot.kill_by_s = now_s + self._options.limits.exit_s
        return True

    def _told(self, slot: Slot, event: SlotEvent, now_s: float) -> bool:
        """Move by what a worker says. One that speaks out of turn is out of its mind, and must not harm the pool."""
        if (slot.state, event) in lifecycle.TRANSITIONS:
            slot.apply(event, now_s)
            return True
        slot.error = Status(Code.INTERNAL, f"The worker of {slot.id.servable} said {event} while {slot.state}")
        self._kill(slot, "it spoke out of turn", now_s)
        return False

    def spawned(self, incarnation: Incarnation, pid: int) -> None:
        slot = self._running.get(incarnation)
        if slot is not None:
            slot.pid = pid
            self._options.places.ledger.spawned(incarnation, pid)

    def exited(self, incarnation: Incarnation, exit_: Exit, now_s: float) -> None:
        """A worker's process is gone; the authority on death."""
        slot = self._running.pop(incarnation, None)
        if slot is None:
            return
        if slot.kill_reason:
            exit_ = replace(exit_, cause=f"{exit_.cause}: {slot.kill_reason}")
        log.info("worker gone %s", fields(**self._names(slot), pid=slot.pid, state=slot.state, cause=exit_.cause))
        self.board.died(incarnation)
        self._options.places.ledger.exited(incarnation, now_s)
        self._commands.append(AnnounceDeath(incarnation, exit_.cause, exit_.recording))
        slot.last_exit = replace(exit_, recording=NO_RECORDING)  # not to be kept for as long as the slot
        slot.incarnation, slot.pid, slot.heartbeat_s, slot.ready_epoch = None, None, None, None
        slot.served_before, slot.served = slot.served_before + slot.served, 0
        draining = slot.state is SlotState.DRAINING
        had_been_ready = slot.was_ready
        slot.apply(SlotEvent.EXITED, now_s)
        if not draining:
            self._schedule(slot, exit_, had_been_ready, now_s)

    # -- reconciliation --------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> list[Command]:
        """Everything that is due at `now_s`, as commands in the order in which to do them."""
        if self._due_s is not None and now_s - self._due_s > _STALL_S:
            self._forgive_silence(now_s)
        self._refresh_models(now_s)
        self._retry_due(now_s)
        self._kill_overdue(now_s)
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
        times += [
            overdue[0] for slot in self._running.values() if (overdue := self._options.limits.overdue(slot)) is not None
        ]
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
        for model in self.models.values():
            available = model.available_versions(self.board.acked_epoch)
            transition = next_transition(model.settings.transition, model.snapshots(self.board.acked_epoch))
            for version in transition.load:
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
            history = RestartHistory(self._options.restart, self._options.jitter)
            return Slot(place.slot, place.device, history, place.claim_bytes, since_s=now_s)

        was, acked = servable.refusal, self.board.acked_epoch
        leaving = arrange(servable, settings, places, self._all_rooms(), new_slot=new_slot, acked_epoch=acked)
        for slot in leaving:
            self._unload(slot, now_s)
            if slot.state is SlotState.DRAINING and places.is_lost(slot.device):
                self._send_kill(slot, f"its device was lost: {places.inventory.lost[slot.device.id]}", now_s)
        if servable.refusal not in {"", was}:
            log.error("not placed %s", fields(servable=servable.id, why=servable.refusal))

    def _arrange_slots(self, now_s: float) -> None:
        """Slots follow the configuration and the devices; where that could not be finished before, it goes on."""
        due = self._arranged != self._options.places.generation
        self._arranged = self._options.places.generation
        for servable in self._servables():
            placed = servable.aspired and servable.presence in {Presence.LIVE, Presence.FAILED}
            if placed and (due or servable.unsettled):
                self._place(servable, now_s)

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
                may_load = slot.ever_ready or loading < self._options.max_loading
                if slot.state is SlotState.PENDING and may_load and self._options.places.may_start(slot, now_s):
                    self._spawn(servable, slot, now_s)
                    loading += 1

    def _spawn(self, servable: Servable, slot: Slot, now_s: float) -> None:
        self._last_incarnation += 1
        incarnation = Incarnation(self._last_incarnation)
        slot.incarnation = incarnation
        slot.endpoint = self._options.endpoint(incarnation)
        slot.load_failed, slot.permanent, slot.was_ready = False, False, False
        slot.kill_by_s, slot.stop_sent, slot.kill_reason, slot.gave_up = None, False, "", False
        slot.apply(SlotEvent.SPAWN, now_s)
        if slot.last_exit is not None:
            slot.restarts += 1
        self._running[incarnation] = slot
        places, policy = self._options.places, self.models[servable.id.name].settings.devices
        places.renew(slot, policy, self._all_rooms())
        places.ledger.started(incarnation, slot.id, slot.device)
        limit_bytes = places.limit_bytes(slot, policy)
        self._commands.append(Spawn(incarnation, slot.id, servable.path, slot.device, slot.ever_ready, limit_bytes))
        log.info("starting worker %s", fields(**self._names(slot), path=servable.path, restarts=slot.restarts))

    def _became_ready(self, slot: Slot, load_s: float, warmup_s: float) -> None:
        slot.was_ready, slot.ever_ready, slot.error = True, True, OK
        slot.load_s, slot.warmup_s = load_s, warmup_s
        slot.history.became_ready(slot.since_s)
        names = self._names(slot)
        log.info("worker ready %s", fields(**names, pid=slot.pid, load_s=f"{load_s:.3f}", warmup_s=f"{warmup_s:.3f}"))

    def _schedule(self, slot: Slot, exit_: Exit, had_been_ready: bool, now_s: float) -> None:
        if slot.load_failed:
            death = Death.PERMANENT if slot.permanent else Death.LOAD_FAILED
        else:
            death = Death.AFTER_READY if had_been_ready else Death.BEFORE_READY
            phase = "while serving" if had_been_ready else "while loading"
            slot.error = Status(Code.UNAVAILABLE, f"The worker of {slot.id.servable} died {phase}: {exit_.cause}")
        decision = slot.history.died(death, now_s)
        if isinstance(decision, GiveUp):
            slot.apply(SlotEvent.GIVE_UP, now_s)
            slot.retry_at_s, slot.gave_up = decision.retry_at_s, True
            if death is Death.AFTER_READY:
                self._roll_back(slot)
            log.error("slot failed %s", fields(slot=slot.id, reason=decision.reason, error=slot.error))
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
            overdue = self._options.limits.overdue(slot)
            if overdue is None or now_s < overdue[0]:
                continue
            if slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                self._send_kill(slot, slot.kill_reason or overdue[1], now_s)
            else:
                self._kill(slot, overdue[1], now_s)

    def _unload(self, slot: Slot, now_s: float) -> None:
        """Let go of a slot. One that serves finishes what is in flight first, however long that takes."""
        was = slot.state
        slot.apply(SlotEvent.UNLOAD, now_s)
        slot.retry_at_s = None
        if slot.state is not SlotState.DRAINING:
            return
        log.info("draining worker %s", fields(**self._names(slot), pid=slot.pid, was=was))
        if was in LOADING:
            self._send_kill(slot, "it was not wanted any more", now_s)

    def _stop_released(self, now_s: float) -> None:
        for incarnation, slot in self._running.items():
            ready_to_go = slot.state is SlotState.DRAINING and not slot.stop_sent and not slot.kill_reason
            if ready_to_go and self.board.is_released(incarnation):
                slot.stop_sent = True
                slot.kill_by_s = now_s + self._options.limits.exit_s
                self._commands.append(Stop(incarnation))

    def _kill(self, slot: Slot, reason: str, now_s: float) -> None:
        slot.apply(SlotEvent.KILL, now_s)
        self._send_kill(slot, reason, now_s)

    def _send_kill(self, slot: Slot, reason: str, now_s: float) -> None:
        slot.kill_reason = reason
        slot.kill_by_s = now_s + self._options.limits.exit_s
        if slot.incarnation is not None:
            self._commands.append(Kill(slot.incarnation, reason))

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

    @staticmethod
    def _names(slot: Slot) -> dict[str, object]:
        return {"servable": slot.id.servable, "slot": slot.id, "incarnation": slot.incarnation}
