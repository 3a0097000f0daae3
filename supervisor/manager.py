"""Reconciles the versions that are aspired with the workers that run. Pure: events in, commands out, no clock.

The caller feeds what happened (polls, worker messages, exits, acknowledgements), then calls `advance`, which
recomputes everything from the whole state and returns the I/O to do. What the process of a slot goes through is
`workers`, what a model wants is `model`. Runs in the supervisor's event loop.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from . import crash_report, memory_limit, renewals, restart_by_hand, start_outcome
from .arrangement import Arrangement
from .commands import AnnounceDeath, Command, Publish, Report, Spawn
from .exits import Exit, ExitKind
from .lifecycle import LOADING, SlotEvent, SlotState
from .limits import Limits
from .memory_limit import Sample
from .model import Model, ModelSettings
from .places import Places
from .restart import Death, GiveUp, RestartHistory, RestartPolicy
from .restart_by_hand import Restart
from .routes import RouteBoard
from .servable import Servable, Slot
from .transition_policy import next_transition
from .turns import Turns
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.status import Code, NotFound, Status
from .workers import WorkerMessage, WorkerRules, Workers

log = logging.getLogger(__name__)

# How many models that are not configured any more the status goes on listing.
MAX_RETIRED_MODELS = 32
# One that dies sooner than this after it was ready, and has answered nothing, was never good.
_ON_ARRIVAL_S = 1.0
_MIB = 1 << 20


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
        rules = WorkerRules(options.endpoint, options.limits, self._run_timeout_s)
        self.workers = Workers(rules, self.board, options.places.ledger)
        self._arrangement = Arrangement(self.models, options.places, self.workers, self._new_history)
        self._stopping = False
        self._due_s: float | None = None
        self._turns = Turns()

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
        self._arrangement.reconfigured()

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
        return self.workers.heard(incarnation, message, now_s)

    def memory_used(self, incarnation: Incarnation, sample: Sample, now_s: float) -> bool:
        """What a worker's process has; whether something is to be done about it."""
        slot = self.workers.slot(incarnation)
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
            if slot.state in {SlotState.DRAINING, SlotState.KILLING}:
                self.workers.send_kill(slot, reason, ExitKind.MEMORY_LIMIT, now_s)
            else:
                self.workers.kill(slot, reason, ExitKind.MEMORY_LIMIT, now_s)
            return True
        servable = self._servable(slot)
        if verdict is not memory_limit.Verdict.RENEW or slot.replaces is not None or servable.replacement(slot):
            return False
        used = f"{sample.used_bytes / _MIB:.0f} of {sample.limit_bytes / _MIB:.0f} MiB"
        log.warning("replaced before it is over its memory limit %s", fields(**slot.names(), used=used))
        renewals.begin(servable, slot, urgent=True, now_s=now_s)
        return True

    def exited(self, incarnation: Incarnation, exit_: Exit, now_s: float) -> None:
        """A worker's process is gone; the authority on death."""
        slot = self.workers.gone(incarnation, now_s)
        if slot is None:
            return
        why = slot.broken or slot.kill_reason
        cause = f"{exit_.cause}: {why}" if why else exit_.cause
        exit_ = exit_.explained(cause, slot.exit_kind(exit_))
        names = fields(**slot.names(), pid=slot.pid, state=slot.state, cause=exit_.cause, kind=exit_.kind)
        log.info("worker gone %s", names)
        self.workers.order(AnnounceDeath(incarnation, exit_.cause, exit_.recording))
        if exit_.kind is not ExitKind.STOPPED:
            self.workers.order(Report(crash_report.report(slot, exit_, now_s)))
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

        What to ask for its `outcome`, slot by slot. Raises NotFound.
        """
        wanted = restart_by_hand.wanted(self.models.values(), name, version)
        model = self.models[name]
        model.fallback = None if any(each.rolled_back for each in wanted) else model.fallback
        restarts = []
        for servable in wanted:
            servable.rolled_back = False
            for slot in list(servable.slots):
                if slot.replaces is None and slot.succeeded_by is None:
                    restarts.append(Restart.of(self._restart(servable, slot, now_s), self.workers.last_incarnation))
        return tuple(restarts)

    # -- reconciliation --------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> list[Command]:
        """Everything that is due at `now_s`, as commands in the order in which to do them."""
        late_s = 0.0 if self._due_s is None else now_s - self._due_s
        self._refresh_models(now_s)
        self._retry_due(now_s)
        self.workers.kill_overdue(now_s, late_s)
        self._hand_over(now_s)
        self._arrangement.begin()
        if not self._stopping:
            self._apply_transitions(now_s)
            self._arrangement.follow(self.board.acked_epoch, now_s)
            self._spawn_pending(now_s)
        self._forget_gone()
        table = self.board.publish(tuple(model.route() for model in self.models.values()))
        if table is not None:
            self.workers.published(table.epoch)
            self.workers.order(Publish(table))
        self.workers.stop_released(now_s)
        self._due_s = self.next_deadline_s()
        return self.workers.take_orders()

    def next_deadline_s(self) -> float | None:
        """When `advance` must be called again though nothing happens; None when nothing is due."""
        times = [slot.retry_at_s for slot in self._slots() if slot.retry_at_s is not None]
        times += self.workers.deadlines_s()
        if self._turns.due_s is not None and not self._stopping:
            times.append(self._turns.due_s)
        return min(times, default=None)

    def shut_down(self, now_s: float) -> None:
        """Unload everything: no frontend sends any more."""
        self._stopping = True
        for slot in self._slots():
            if slot.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                self.workers.unload(slot, now_s)

    @property
    def settled(self) -> bool:
        """Every configured model answers, or its first attempt has failed."""
        return start_outcome.is_settled(self.models.values(), self.board.acked_epoch)

    @property
    def answering(self) -> bool:
        """Every configured model answers."""
        return start_outcome.is_answering(self.models.values(), self.board.acked_epoch)

    def startup_failure(self) -> Status | None:
        """Why TF Serving would end the start."""
        return start_outcome.failure(self.models.values(), self.board.acked_epoch)

    @property
    def places(self) -> Places:
        """The devices, and what is known of them."""
        return self._options.places

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
            transition = next_transition(model.settings.transition, model.snapshots(self.board.acked_epoch))
            for version in transition.load if model.name not in waiting else ():
                self._arrangement.place(model.servables[version], self.board.acked_epoch, now_s)
            for version in transition.unload:
                model.leaves(version, self.board.acked_epoch)
                for slot in model.servables[version].slots:
                    if slot.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                        self.workers.unload(slot, now_s)

    def _spawn_pending(self, now_s: float) -> None:
        loading = sum(slot.state in LOADING for slot in self._slots())
        for servable in self._servables():
            for slot in servable.slots:
                # One that is to be brought back does not queue behind loads that are slow, or hang.
                may_load = slot.ever_ready or slot.urgent or loading < self._options.max_loading
                if slot.gave_up and self.models[servable.id.name].must_clear_first:
                    continue
                if slot.state is SlotState.PENDING and may_load and self._arrangement.may_start(slot, now_s):
                    self._spawn(servable, slot, now_s)
                    loading += 1

    def _spawn(self, servable: Servable, slot: Slot, now_s: float) -> None:
        incarnation = self.workers.start(slot, now_s)
        limit_bytes = self._arrangement.claim(slot, incarnation)
        urgent, renewal = slot.ever_ready or slot.urgent, slot.replaces is not None
        parts = max(1, servable.wanted_slots)
        self.workers.order(
            Spawn(incarnation, slot.id, servable.path, slot.device, urgent, limit_bytes, renewal, slot.part, parts)
        )
        log.info("starting worker %s", fields(**slot.names(), path=servable.path, restarts=slot.restarts))

    def _schedule(self, slot: Slot, exit_: Exit, death: Death, now_s: float) -> None:
        if not slot.load_failed:
            phase = "while serving" if slot.was_ready else "while loading"
            slot.error = Status(Code.UNAVAILABLE, f"The worker of {slot.id.servable} died {phase}: {exit_.cause}")
        replacement = self._servable(slot).replacement(slot)
        model = self.models[slot.id.servable.name]
        dispensable = model.good_instead_of(slot.id.servable.version) is not None
        decision = slot.history.died(death, now_s, dispensable=dispensable)
        if isinstance(decision, GiveUp):
            slot.apply(SlotEvent.GIVE_UP, now_s)
            slot.retry_at_s, slot.gave_up = decision.retry_at_s, True
            self._roll_back(slot)
            if replacement is not None:
                self.workers.unload(replacement, now_s)
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
        """A version that was given up gives way to the last one that served, where nothing else does."""
        good = self.models[slot.id.servable.name].roll_back(slot.id.servable.version)
        if good is not None:
            for each in self._servable(slot).slots:
                each.retry_at_s = None
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

    def _run_timeout_s(self, slot: Slot) -> float:
        return self.models[slot.id.servable.name].settings.run_timeout_s

    def _new_history(self, settings: ModelSettings) -> RestartHistory:
        return RestartHistory(self._restart_policy(settings), self._options.jitter)

    def _restart_policy(self, settings: ModelSettings) -> RestartPolicy:
        policy = self._options.restart
        return replace(
            policy,
            max_restarts=policy.max_restarts if settings.max_restarts is None else settings.max_restarts,
            period_s=policy.period_s if settings.restart_period_s is None else settings.restart_period_s,
        )

    def _restart(self, servable: Servable, slot: Slot, now_s: float) -> Slot:
        """Have a slot restarted; the slot in which its next worker will be."""
        log.info("restart by hand %s", fields(**slot.names(), state=slot.state))
        match slot.state:
            case SlotState.READY:
                return renewals.begin(servable, slot, urgent=False, now_s=now_s)
            case SlotState.BACKOFF | SlotState.FAILED:
                slot.try_at(now_s)
            case SlotState.STARTING | SlotState.LOADING | SlotState.WARMING:
                slot.history.forget()
                self.workers.kill(slot, "it was restarted by hand", ExitKind.KILLED, now_s)
        return slot

    def _hand_over(self, now_s: float) -> None:
        """Let old workers go whose replacements serve, and replacements that there is no room for."""
        for servable in self._servables():
            for slot in renewals.without_room(servable):
                log.warning("not replaced %s", fields(slot=slot.id, error=slot.error))
                self.workers.unload(slot, now_s)
            for old in renewals.due(servable, self.board.acked_epoch):
                log.info("replaced %s", fields(**old.names(), pid=old.pid))
                if old.state not in {SlotState.STOPPED, SlotState.DRAINING}:
                    self.workers.unload(old, now_s)

    def _servables(self) -> Iterable[Servable]:
        """Newest versions first, model by model: the order in which loads start."""
        for model in self.models.values():
            yield from model.newest_first()

    def _slots(self) -> Iterable[Slot]:
        for servable in self._servables():
            yield from servable.slots

    def _servable(self, slot: Slot) -> Servable:
        return self.models[slot.id.servable.name].servables[slot.id.servable.version]


def _death(slot: Slot, exit_: Exit, now_s: float) -> Death:
    """What the end of this slot's process means for the next try. To be asked before the slot knows."""
    if slot.load_failed:
        return Death.PERMANENT if slot.permanent else Death.LOAD_FAILED
    if exit_.kind is ExitKind.NOT_STARTED:
        return Death.NOT_STARTED
    answered = slot.served > 0 or bool(exit_.recording.finished)
    ready_for_a_while = slot.state is not SlotState.READY or now_s - slot.since_s >= _ON_ARRIVAL_S
    return Death.AFTER_READY if slot.was_ready and (answered or ready_for_a_while) else Death.BEFORE_READY
