"""The manager under whatever comes in whatever order: loads, deaths, hangs, memory, restarts by hand, new versions.

Hypothesis plays fake processes and one frontend (`World`). What must hold after each step: routes lead only to the
living and READY, each living process has its slot, nothing that is wanted is forgotten, deaths are replaced within the
restart intensity, and as long as nobody dies a model that answers goes on answering.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelpool.supervisor.exits import ExitKind
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.memory_limit import Sample
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.restart import RestartHistory, RestartPolicy
from modelpool.supervisor.servable import Slot
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import ServableState, WorkerPhase
from modelpool.supervisor.wire.status import Code, NotFound
from modelpool.supervisor.wire.worker_messages import (
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
)
from tests.unit.manager_world import KILLED, World

MIB = 1 << 20
MAX_RESTARTS, PERIOD_S = 3, 60.0
RUN_TIMEOUT_S = 5.0
# A death is noticed within the run timeout (or the time for a heartbeat) and this.
NOTICED_S = 1.5
SILENT_S = 30.0
STATES_WITHOUT_PROCESS = {SlotState.BACKOFF, SlotState.FAILED}


@dataclass
class Life:
    """What one place's processes went through: the death that the next one makes up for, and those made up for."""

    history: RestartHistory
    died_s: float | None = None
    replaced_s: deque[float] = field(default_factory=deque)


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        policy = RestartPolicy(
            max_load_retries=2, load_retry_interval_s=10.0, max_restarts=MAX_RESTARTS, period_s=PERIOD_S
        )
        self.world = World(restart=policy)
        self.world.manager.configure({"m": ModelSettings(run_timeout_s=RUN_TIMEOUT_S)})
        self.steps: dict[Incarnation, int] = {}
        self.lives: dict[int, Life] = {}
        self.wanted: set[int] = set()

    # -- what happens --------------------------------------------------------------------------------------------------

    @initialize()
    def serve(self) -> None:
        self.aspire({1})
        self.become_ready()
        self.ack()

    @rule(versions=st.sets(st.integers(1, 4), min_size=1, max_size=3), kept=st.booleans())
    def aspire(self, versions: set[int], kept: bool = True) -> None:
        """These are wanted; all others are on the disk, too, or none is."""
        self.wanted = versions
        paths = {version: f"/models/m/{version}" for version in range(1, 5)}
        wanted = {version: paths[version] for version in versions}

        def look() -> None:
            self.world.manager.aspire("m", wanted, paths if kept else wanted)
            self.world.advance()

        self._goes_on_answering(look)

    @rule()
    def aspire_nothing(self) -> None:
        self.wanted = set()
        self.world.aspire()

    @precondition(lambda self: self._loading())
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """A worker comes so much further, at last it is ready."""
        incarnation = data.draw(st.sampled_from(sorted(self._loading())))
        self._goes_on_answering(lambda: self._say_next(incarnation))

    @precondition(lambda self: self._loading())
    @rule()
    def become_ready(self) -> None:
        """Whatever loads comes to its end."""
        while loading := self._loading():
            self._goes_on_answering(lambda incarnation=loading[0]: self._say_next(incarnation))

    def _say_next(self, incarnation: Incarnation) -> None:
        done = self.steps.get(incarnation, 0)
        messages = [
            WorkerHello(pid=incarnation),
            WorkerProgress(WorkerPhase.LOADING),
            WorkerProgress(WorkerPhase.WARMING),
            WorkerReady(1.0, 1.0),
        ]
        self.world.manager.worker_message(incarnation, messages[done], self.world.now_s)
        self.steps[incarnation] = done + 1
        self.world.advance()

    @precondition(lambda self: any(self.steps.get(i, 0) in (2, 3) for i in self._loading()))
    @rule(data=st.data(), permanent=st.booleans())
    def fail(self, data: st.DataObject, permanent: bool) -> None:
        loading = sorted(i for i in self._loading() if self.steps.get(i, 0) in (2, 3))
        incarnation = data.draw(st.sampled_from(loading))
        failed = WorkerLoadFailed(Code.INTERNAL, "no good", permanent)

        def say() -> None:
            self.world.manager.worker_message(incarnation, failed, self.world.now_s)
            self.world.advance()

        self._goes_on_answering(say)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self._die(data.draw(st.sampled_from(sorted(self.world.alive))))

    @precondition(lambda self: self._ready())
    @rule(data=st.data(), times=st.integers(2, 6), pause_s=st.floats(0.0, 20.0))
    def crash_again_and_again(self, data: st.DataObject, times: int, pause_s: float) -> None:
        """As soon as it is back, for as long as it comes back."""
        place = data.draw(st.sampled_from(sorted(self.world.manager.workers.slot(each).id for each in self._ready())))
        for _ in range(times):
            ready = [
                slot.incarnation for slot in self._slots(lambda slot: slot.id == place and slot.route() is not None)
            ]
            if not ready or ready[0] is None:
                return
            self._die(ready[0])
            self.become_ready()
            self.sleep(pause_s, True)
            self.become_ready()

    @precondition(lambda self: self._ready())
    @rule(data=st.data(), silent=st.booleans())
    def hang(self, data: st.DataObject, silent: bool) -> None:
        """One stands still, or executes without end; the others say that they are well. It alone is killed, in time."""
        hung = data.draw(st.sampled_from(sorted(self._ready())))
        doomed_before = set(self.world.doomed)
        waited_s, limit_s = 0.0, min(SILENT_S, max(2.0, RUN_TIMEOUT_S)) + NOTICED_S
        while hung not in self.world.doomed and waited_s < limit_s:
            for incarnation in self._heard(besides=hung):
                self.world.manager.worker_message(incarnation, WorkerHeartbeat(1, 0, 0.0), self.world.now_s)
            if not silent:
                self.world.manager.worker_message(hung, WorkerHeartbeat(1, 1, waited_s), self.world.now_s)
            self._sleep(0.5)
            waited_s += 0.5
        assert hung in self.world.doomed, f"a hang was not noticed within {waited_s} s"
        slot = self.world.manager.workers.slot(hung)
        assert slot is not None
        assert slot.kill_kind is ExitKind.HANG
        assert not (set(self.world.doomed) - doomed_before - {hung}) & set(self._ready())

    @precondition(lambda self: self._ready())
    @rule(data=st.data(), used_mib=st.sampled_from([20, 84, 86, 95, 101]))
    def take_memory(self, data: st.DataObject, used_mib: int) -> None:
        """A worker has so much of its 100 MiB: one that has a lot is replaced, one that has more is killed."""
        incarnation = data.draw(st.sampled_from(sorted(self._ready())))
        sample = Sample(used_mib * MIB, 100 * MIB, 1000 * MIB, "watch")

        def look() -> None:
            self.world.manager.memory_used(incarnation, sample, self.world.now_s)
            self.world.advance()

        if used_mib > 100:
            look()
            assert incarnation in self.world.doomed
        else:
            self._goes_on_answering(look)
            assert incarnation in self._ready()

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def restart_by_hand(self, data: st.DataObject) -> None:
        """Whatever serves goes on until a fresh one does; who restarts by hand may do so more often than deaths."""
        version = data.draw(st.none() | st.sampled_from(sorted(self.wanted)))

        def restart() -> None:
            with suppress(NotFound):
                for each in self.world.manager.restart("m", version, self.world.now_s):
                    self.lives.pop(id(each.slot.history), None)
            self.world.advance()

        self._goes_on_answering(restart)

    @precondition(lambda self: self.world.doomed)
    @rule()
    def bury(self) -> None:
        """Those who were told to go, go."""
        while self.world.doomed:
            self._die(next(iter(self.world.doomed)))

    @rule()
    def ack(self) -> None:
        self._goes_on_answering(self.world.ack)

    @rule(seconds=st.floats(0.0, 100.0), heard=st.booleans())
    def sleep(self, seconds: float, heard: bool) -> None:
        """Time passes, and everybody is heard of, or nobody."""
        ends_s = self.world.now_s + seconds
        while self.world.now_s < ends_s:
            for incarnation in self._heard() if heard else ():
                self.world.manager.worker_message(incarnation, WorkerHeartbeat(1, 0, 0.0), self.world.now_s)
            self._sleep(min(2.0, ends_s - self.world.now_s))

    def _sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)
        self._count_restarts()

    def _die(self, incarnation: Incarnation) -> None:
        slot = self.world.manager.workers.slot(incarnation)
        assert slot is not None
        counts = slot.state is not SlotState.DRAINING and slot.replaces is None and not slot.load_failed
        self._life(slot).died_s = self.world.now_s if counts else None
        self.world.die(incarnation, self.world.doomed.get(incarnation, KILLED))
        self._count_restarts()

    # -- what must hold ------------------------------------------------------------------------------------------------

    def _goes_on_answering(self, event: Callable[[], None]) -> None:
        """An event without a death never takes the last version that answers from a model that is wanted."""
        answered = bool(self.world.tables) and bool(self.world.routed())
        event()
        self._count_restarts()
        if answered and self.wanted:
            assert self.world.routed(), "the last version that answers was unloaded before another one does"

    @invariant()
    def routes_lead_to_the_ready_only(self) -> None:
        if not self.world.tables:
            return
        ready = {slot.incarnation for slot in self._slots(lambda slot: slot.route() is not None)}
        assert self.world.routed() == ready
        assert ready <= set(self.world.alive)
        assert all(slot.state is SlotState.READY for slot in self._slots(lambda slot: slot.route() is not None))

    @invariant()
    def available_is_no_lie(self) -> None:
        for version, state in self.world.states().items():
            serving = [slot for slot in self.world.servable(version).slots if slot.route() is not None]
            assert (state is ServableState.AVAILABLE) == bool(serving)

    @invariant()
    def every_process_has_its_slot(self) -> None:
        filled = [slot.incarnation for slot in self._slots(lambda slot: slot.incarnation is not None)]
        assert sorted(filled) == sorted(self.world.alive)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Every slot that is wanted and has no process waits for a known moment, unless it failed for good.

        A version that was rolled back waits for another to fail.
        """
        model = self.world.manager.models["m"]
        assert model.fallback is not None or not any(
            each.rolled_back and each.aspired for each in self.world.servables()
        )
        for slot in self._slots(lambda slot: slot.incarnation is None):
            servable = self.world.servable(slot.id.servable.version)
            if (
                servable.aspired
                and not servable.rolled_back
                and slot.state in STATES_WITHOUT_PROCESS
                and not slot.permanent
            ):
                assert slot.retry_at_s is not None

    @invariant()
    def a_place_has_two_at_most_and_only_to_replace(self) -> None:
        for version in self.world.states():
            slots = self.world.servable(version).slots
            staying = [slot for slot in slots if slot.stays]
            assert len(staying) <= 1
            going = (SlotState.STOPPED, SlotState.DRAINING)
            assert sum(slot.replaces is not None and slot.state not in going for slot in slots) <= len(staying)

    @invariant()
    def deaths_are_replaced_within_the_intensity(self) -> None:
        for life in self.lives.values():
            assert len(life.replaced_s) <= MAX_RESTARTS

    # -- details -------------------------------------------------------------------------------------------------------

    def _life(self, slot: Slot) -> Life:
        return self.lives.setdefault(id(slot.history), Life(slot.history))

    def _count_restarts(self) -> None:
        """Whoever died and has a process again was restarted now."""
        for slot in self._slots(lambda slot: slot.incarnation is not None and slot.replaces is None):
            life = self._life(slot)
            if life.died_s is not None:
                life.replaced_s.append(life.died_s)
                life.died_s = None
        for life in self.lives.values():
            while life.replaced_s and life.replaced_s[0] <= self.world.now_s - PERIOD_S:
                life.replaced_s.popleft()

    def _slots(self, wanted: Callable[[Slot], bool]) -> list[Slot]:
        servables = self.world.manager.models["m"].servables.values()
        return [slot for servable in servables for slot in servable.slots if wanted(slot)]

    def _ready(self) -> list[Incarnation]:
        return [i for slot in self._slots(lambda slot: slot.state is SlotState.READY) if (i := slot.incarnation)]

    def _loading(self) -> list[Incarnation]:
        return [i for i in self.world.alive if self.steps.get(i, 0) < 4 and i not in self.world.doomed]

    def _heard(self, besides: Incarnation | None = None) -> list[Incarnation]:
        """Those that have said hello."""
        return [i for i in self.world.alive if self.steps.get(i, 0) > 0 and i != besides]


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestAnyOrder = AnyOrder.TestCase
