"""Random configurations, devices, deaths and reloads: the manager over a scripted NVML, processes that take memory.

Whatever happens: no device is over its budget, no process starts on a device that is lost or whose memory is not free,
nothing that could stay has moved, and whatever is missing has a reason that is so. What is so is `devices_world`'s, and
no answer of the code under test.
"""

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelpool.supervisor.ledger import CONFIRM_S
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.placement import DevicePolicy, Order
from modelpool.supervisor.transition_policy import Presence, TransitionPolicy
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.status import NotFound
from modelpool.supervisor.wire.worker_messages import WorkerHello, WorkerProgress, WorkerReady
from tests.fake_nvml import FakeGpu
from tests.unit.devices_pool import PoolOnGpus
from tests.unit.devices_world import GIB, GpuHost
from tests.unit.manager_world import take_newest_table
from tests.unit.refusal_text import full_devices

NAMES = ("a", "b", "c", "d")
DEVICES = st.one_of(
    st.sampled_from([("auto",), ("auto",), ("all",), ("all",), ("gpu:0",), ("cpu",), ("gpu:9",)]),
    st.lists(st.sampled_from(["gpu:0", "gpu:1", "gpu:1:mig:0", "GPU-2", "cpu"]), min_size=1, max_size=3).map(tuple),
)
POLICIES = st.builds(
    DevicePolicy,
    devices=DEVICES,
    replicas=st.sampled_from([1, 1, 2, 3]),
    memory_bytes=st.sampled_from([0, GIB, 2 * GIB, 2 * GIB, 3 * GIB, 4 * GIB, 20 * GIB]),
    order=st.sampled_from(Order),
)
SERVING = {SlotState.STARTING, SlotState.LOADING, SlotState.WARMING, SlotState.READY}


class DevicesOverTime(PoolOnGpus, RuleBasedStateMachine):
    @initialize(
        sizes=st.lists(st.integers(3, 9), min_size=1, max_size=3),
        bare=st.integers(0, 9),
        mig=st.booleans(),
        contained=st.booleans(),
        policies=st.lists(POLICIES, min_size=2, max_size=4),
    )
    def start(self, sizes: list[int], bare: int, mig: bool, contained: bool, policies: list[DevicePolicy]) -> None:
        """Of ten hosts one has no GPU."""
        sizes = [] if bare == 9 else sizes
        gpus = [FakeGpu(f"GPU-{n}", size * GIB, driver_bytes=GIB // 4) for n, size in enumerate(sizes)]
        if mig and len(sizes) > 1:
            gpus[1].mig = {0: FakeGpu("MIG-0", 3 * GIB), 2: FakeGpu("MIG-2", 4 * GIB)}
        self.begin(GpuHost(gpus, contained))
        for name, policy in zip(NAMES, policies, strict=False):
            self.configure(name, policy, TransitionPolicy.AVAILABILITY_PRESERVING)

    # -- what happens ----------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        self.now_s += 1.0
        self.host.looked(self.now_s)
        self.places.look(self.nvml.look(), self.now_s)
        for device in self.places.inventory.devices:
            uuid = device.cuda_visible_devices
            assert (device.id in self.places.inventory.lost) == (device.is_gpu and uuid not in self.host.usable)
            held = [dead for dead in self.host.unfreed(uuid, self.now_s) if dead.spawn.device.id == device.id]
            assert self.places.ledger.unconfirmed().get(device.id, 0) >= len(held), "memory is not free yet"
        self.advance()
        self.advance()  # where the first has moved something, what it said before that may not be so any more
        self.check_refusals(resting=False)

    @rule(name=st.sampled_from(NAMES), policy=POLICIES, transition=st.sampled_from(TransitionPolicy))
    def configure(self, name: str, policy: DevicePolicy, transition: TransitionPolicy) -> None:
        self.policies[name] = policy
        self.manager.configure({n: ModelSettings(devices=p, transition=transition) for n, p in self.policies.items()})
        self.manager.aspire(name, {1: f"/{name}/1"})
        self.advance()

    @rule(name=st.sampled_from(NAMES), versions=st.sets(st.integers(1, 3), max_size=2))
    def aspire(self, name: str, versions: set[int]) -> None:
        self.manager.aspire(name, {version: f"/{name}/{version}" for version in versions})
        self.advance()

    @rule()
    def load(self) -> None:
        """All that were started load their models, and take for it what they may."""
        for incarnation in sorted(self.alive.keys() - self.doomed):
            slot = self.manager.workers.slot(incarnation)
            if slot is None or slot.state is not SlotState.STARTING:
                continue
            if not self.host.load(incarnation):
                self.die(incarnation)
                continue
            peak_bytes = 0 if self.host.contained else self.alive[incarnation].memory_limit_bytes
            ready = WorkerReady(1.0, 0.0, peak_bytes)
            for message in (WorkerHello(incarnation), WorkerProgress(WorkerPhase.LOADING), ready):
                self.manager.worker_message(incarnation, message, self.now_s)
            self.measured.add(slot.id.servable.name)
        self.advance()

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        if self.alive:
            self.die(data.draw(st.sampled_from(sorted(self.alive))))
            self.advance()

    @rule(data=st.data(), leaves=st.sampled_from([0, 2, 3, 4, 5, 9]))
    def crash_all(self, data: st.DataObject, leaves: int) -> None:
        """All workers on a GPU die; when they are to be back, somebody else has memory there but for some GiB."""
        if devices := self.host.devices():
            gpu = data.draw(st.sampled_from(devices), "gpu")
            for process in self.host.on(gpu.uuid):
                if process.died_s is None:
                    self.die(process.spawn.incarnation)
                if not process.freed:
                    self.host.free(process)
            self.host.stranger_holds(gpu, max(0, gpu.total_bytes - gpu.driver_bytes - leaves * GIB))
            for _ in range(3):
                self.look()

    @rule()
    def go(self) -> None:
        """Those that were told to go are gone."""
        while self.doomed:
            self.die(min(self.doomed))
            self.advance()

    @rule(name=st.sampled_from(NAMES))
    def restart_by_hand(self, name: str) -> None:
        """Each worker that serves is replaced by one that is ready before it goes, where there is room for both."""
        with contextlib.suppress(NotFound):
            self.manager.restart(name, None, self.now_s)
        self.advance()

    @rule(some=st.booleans())
    def give_back(self, some: bool) -> None:
        """The driver frees the memory of the dead, or of one of them."""
        for process in self.host.dead()[: 1 if some else None]:
            self.host.free(process)

    @rule(data=st.data(), halves=st.sampled_from([0, 0, 2, 3, 6, 20]))
    def stranger(self, data: st.DataObject, halves: int) -> None:
        """Somebody else's process takes memory, or gives it back."""
        if devices := self.host.devices():
            gpu = data.draw(st.sampled_from(devices), "gpu")
            self.host.stranger_holds(gpu, halves * GIB // 2)

    @rule(index=st.integers(0, 3))
    def repartition(self, index: int) -> None:
        self.host.repartition(index)

    @rule(number=st.integers(0, 2), how=st.sampled_from(["fatal", "harmless", "bus", "silent", "back", "back"]))
    def break_gpu(self, number: int, how: str) -> None:
        if number < len(self.host.gpus):
            self.host.break_gpu(self.host.gpus[number], how)

    @rule()
    def ack(self) -> None:
        take_newest_table(self.manager.board, self.alive)
        self.advance()

    @rule(seconds=st.sampled_from([3, int(CONFIRM_S)]), stuck=st.booleans())
    def sleep(self, seconds: int, stuck: bool) -> None:
        """Time goes by as in a pool that does not stand still: NVML is read, workers say that they live."""
        if not stuck:
            self.give_back(some=False)
        for _ in range(seconds):
            for incarnation in self.alive:
                slot = self.manager.workers.slot(incarnation)
                if slot is not None:
                    slot.heartbeat_s = self.now_s
            self.look()

    @rule()
    def reload_the_same(self) -> None:
        """Nothing is moved for it."""
        self.settle()
        before = {slot.id: slot.incarnation for servable in self.servables() for slot in servable.slots}
        self.manager.configure(
            {name: model.settings for name, model in self.manager.models.items() if model.configured}
        )
        self.advance()
        after = {slot.id: slot.incarnation for servable in self.servables() for slot in servable.slots}
        assert before == after
        self.check_refusals()

    @precondition(lambda self: any(full_devices(servable.refusal) for servable in self.servables()))
    @rule()
    def heed(self) -> None:
        """What a refusal advises is done; then what was refused has a place more."""
        self.settle()
        self.check_refusals()
        refused = [servable for servable in self.servables() if servable.refusal]
        advice = [said for servable in refused for said in full_devices(servable.refusal) if said.leaving]
        others = [said for said in advice if not any("@" in name for name in said.leaving)]  # no slot of its own
        names = {name.partition("/")[0] for said in others[:1] for name in said.leaving}
        if len(refused) != 1 or not names or refused[0].id.name in names or not refused[0].aspired:
            return
        before, said_before = sum(slot.stays for slot in refused[0].slots), refused[0].refusal
        for name in names:
            self.manager.aspire(name, {})
        self.settle()
        assert sum(slot.stays for slot in refused[0].slots) > before, (said_before, refused[0].refusal)

    def settle(self) -> None:
        """Let everything come to rest."""
        for _ in range(12):
            self.go()
            self.give_back(some=False)
            self.look()
            self.load()
            self.ack()

    # -- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def every_slot_has_a_device_that_it_may_have(self) -> None:
        devices = set(self.places.inventory.devices)
        for servable in self.servables():
            assert all(slot.device in devices or not slot.stays for slot in servable.slots)
            alone = [slot.id for slot in servable.slots if slot.replaces is None and slot.succeeded_by is None]
            assert len(set(alone)) == len(alone)
            for slot in servable.slots:
                if slot.state in SERVING:
                    assert not slot.device.is_gpu or slot.device.cuda_visible_devices in self.host.usable

    @invariant()
    def what_is_missing_has_a_reason(self) -> None:
        for servable in self.servables():
            if servable.aspired and servable.presence is not Presence.GONE and servable.wanted_slots:
                staying = [slot for slot in servable.slots if slot.stays]
                if len(staying) < servable.wanted_slots and servable.presence is not Presence.GOING:
                    assert servable.refusal.startswith(f"{servable.id}: ")
                    assert any(word in servable.refusal for word in ("needs ", "lost (", "names ", "declares "))
            if servable.is_refused:
                assert servable.error.message == servable.refusal


TestDevicesOverTime = pytest.mark.timeout(120)(DevicesOverTime.TestCase)
TestDevicesOverTime.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
