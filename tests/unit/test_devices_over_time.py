"""Random configurations, devices, deaths and reloads: the manager over a scripted NVML, processes that take memory.

Whatever happens: no device is over its budget, no process starts on a device that is lost or whose memory is not free,
nothing that could stay has moved, and whatever is missing has a reason.
"""

import contextlib

import pynvml
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelpool.supervisor.commands import Kill, Spawn, Stop
from modelpool.supervisor.devices import Inventory
from modelpool.supervisor.ledger import CONFIRM_S
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import GIB, DevicePolicy, Order
from modelpool.supervisor.places import Places
from modelpool.supervisor.process import Exit
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.servable import Servable
from modelpool.supervisor.transition_policy import Presence, TransitionPolicy
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.status import NotFound
from modelpool.supervisor.wire.worker_messages import WorkerHello, WorkerProgress, WorkerReady
from tests.fake_nvml import FakeGpu, FakeLibrary
from tests.unit.manager_world import FRONTEND, take_newest_table

NAMES = ("a", "b", "c")
HOST_PIDS = 100_000
DEVICES = st.one_of(
    st.sampled_from([("auto",), ("all",), ("cpu",), ("gpu:0",), ("gpu:9",)]),
    st.lists(st.sampled_from(["gpu:0", "gpu:1", "gpu:1:mig:0", "GPU-2", "cpu"]), min_size=1, max_size=3).map(tuple),
)
POLICIES = st.builds(
    DevicePolicy,
    devices=DEVICES,
    replicas=st.integers(1, 3),
    memory_bytes=st.sampled_from([0, GIB, 2 * GIB, 5 * GIB, 20 * GIB]),
    order=st.sampled_from(Order),
)


class DevicesOverTime(RuleBasedStateMachine):
    @initialize(sizes=st.lists(st.integers(2, 9), min_size=0, max_size=3), mig=st.booleans(), contained=st.booleans())
    def start(self, sizes: list[int], mig: bool, contained: bool) -> None:
        self.gpus = [FakeGpu(f"GPU-{n}", size * GIB, driver_bytes=GIB // 4) for n, size in enumerate(sizes)]
        if mig and len(sizes) > 1:
            self.gpus[1].mig = {0: FakeGpu("MIG-0", 3 * GIB), 2: FakeGpu("MIG-2", 4 * GIB)}
        self.library = FakeLibrary(*self.gpus)
        self.nvml = RealNvml(self.library)
        self.instances: dict[str, FakeGpu] = {}  # MIG instances that were ever made
        self.physical("")
        self.offset = HOST_PIDS if contained else 0
        self.places = Places(Inventory.of(self.nvml.look()))
        self.now_s = 1000.0
        self.made = 0
        self.alive: dict[Incarnation, Spawn] = {}
        self.holders: dict[Incarnation, FakeGpu] = {}
        self.died_s: dict[Incarnation, float] = {}
        self.patience_over = False  # memory was not given back for so long that it counts as somebody else's
        self.policies: dict[str, DevicePolicy] = {}
        self.manager = Manager(
            ManagerOptions(
                max_loading=4,
                endpoint=lambda incarnation: f"ipc:///fake/w{incarnation}",
                jitter=lambda: 0.0,
                restart=RestartPolicy(max_load_retries=2, load_retry_interval_s=1.0),
                places=self.places,
            )
        )
        self.manager.board.join(FRONTEND)

    # -- the world -------------------------------------------------------------------------------------------

    def advance(self) -> None:
        doomed: list[Incarnation] = []
        for command in self.manager.advance(self.now_s):
            match command:
                case Spawn():
                    self.check_start(command)
                    self.alive[command.incarnation] = command
                    self.manager.workers.spawned(command.incarnation, command.incarnation)
                    if command.device.memory_bytes:
                        self.hold(command)
                case Kill(incarnation) | Stop(incarnation):
                    doomed.append(incarnation)
        for incarnation in doomed:
            if incarnation in self.alive:
                self.die(incarnation)
        if doomed:
            self.advance()

    def check_start(self, spawn: Spawn) -> None:
        assert spawn.device.id not in self.places.inventory.lost
        gpu = self.physical(spawn.device.cuda_visible_devices)
        for dead, holder in self.holders.items():
            if dead in self.died_s and holder is gpu and not self.patience_over:
                assert self.now_s - self.died_s[dead] >= CONFIRM_S, "a load before the memory of the dead was free"

    def hold(self, spawn: Spawn) -> None:
        """The process takes CUDA's part, and of TensorFlow's as much as it likes, up to its limit."""
        gpu = self.physical(spawn.device.cuda_visible_devices)
        assert gpu is not None
        assert spawn.memory_limit_bytes > 0, "a process that may take all of the GPU"
        overhead_bytes = self.places.book.overhead_bytes(spawn.device.product)
        gpu.processes[spawn.incarnation + self.offset] = overhead_bytes + spawn.memory_limit_bytes // 2
        self.holders[spawn.incarnation] = gpu

    def physical(self, uuid: str) -> FakeGpu | None:
        for gpu in self.gpus:
            self.instances |= {each.uuid: each for each in (gpu.mig or {}).values()}
        return self.instances.get(uuid) or next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def die(self, incarnation: Incarnation) -> None:
        del self.alive[incarnation]
        if incarnation in self.holders:
            self.died_s[incarnation] = self.now_s
        self.manager.exited(incarnation, Exit(None, 9, "killed"), self.now_s)

    def servables(self) -> list[Servable]:
        return [servable for model in self.manager.models.values() for servable in model.newest_first()]

    # -- what happens ----------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        self.now_s += 1.0
        self.patience_over |= any(self.now_s - died_s >= CONFIRM_S for died_s in self.died_s.values())
        self.places.look(self.nvml.look(), self.now_s)
        self.advance()

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
        """All that were started load their models."""
        for incarnation in list(self.alive):
            slot = self.manager.workers.slot(incarnation)
            if slot is not None and slot.state is SlotState.STARTING:
                for message in (WorkerHello(incarnation), WorkerProgress(WorkerPhase.LOADING), WorkerReady(1.0, 0.0)):
                    self.manager.worker_message(incarnation, message, self.now_s)
        self.advance()

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        if self.alive:
            self.die(data.draw(st.sampled_from(sorted(self.alive))))
            self.advance()

    @rule(name=st.sampled_from(NAMES))
    def restart_by_hand(self, name: str) -> None:
        """Each worker that serves is replaced by one that is ready before it goes, where there is room for both."""
        with contextlib.suppress(NotFound):
            self.manager.restart(name, None, self.now_s)
        self.advance()

    @rule()
    def give_back(self) -> None:
        """The driver frees the memory of the dead."""
        for dead in list(self.died_s):
            self.holders.pop(dead).processes.pop(dead + self.offset, None)
            del self.died_s[dead]

    @rule(index=st.integers(0, 3))
    def repartition(self, index: int) -> None:
        """A MIG instance goes, or another one is made in its place."""
        for gpu in self.gpus:
            if gpu.mig is not None and not gpu.error:
                gone = gpu.mig.pop(index, None)
                self.made += 1
                if gone is None or index % 2:
                    gpu.mig[index] = FakeGpu(f"MIG-new{self.made}", 3 * GIB, gpu=gpu)
                    self.physical("")

    @rule(number=st.integers(0, 2), how=st.sampled_from(["xid", "bus", "error", "back"]))
    def break_gpu(self, number: int, how: str) -> None:
        if number < len(self.gpus):
            gpu = self.gpus[number]
            codes = {"bus": pynvml.NVML_ERROR_GPU_IS_LOST, "error": pynvml.NVML_ERROR_UNKNOWN}
            gpu.error = codes.get(how, gpu.error if how == "xid" else 0)
            if how == "xid" and not gpu.error:
                self.library.xid(gpu, 79)

    @rule()
    def ack(self) -> None:
        take_newest_table(self.manager.board, self.alive)
        self.advance()

    @rule(seconds=st.sampled_from([3, int(CONFIRM_S)]), stuck=st.booleans())
    def sleep(self, seconds: int, stuck: bool) -> None:
        """Time goes by as in a pool that does not stand still: NVML is read, workers say that they live."""
        if not stuck:
            self.give_back()
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

    def settle(self) -> None:
        """Let everything come to rest."""
        for _ in range(12):
            self.give_back()
            self.look()
            self.load()
            self.ack()

    # -- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def no_device_is_over_its_budget(self) -> None:
        slots = [slot for servable in self.servables() for slot in servable.slots]
        # One that is to replace another has no place of its own before it starts.
        placed = [slot for slot in slots if slot.replaces is None or slot.state is not SlotState.PENDING]
        for room in self.places.rooms(placed):
            claimed_bytes = sum(tenant.claim_bytes for tenant in room.tenants)
            assert not room.accounted or claimed_bytes <= room.budget_bytes or self.patience_over
        for gpu in self.gpus:
            for each in [gpu, *(gpu.mig or {}).values()]:
                assert each.used_bytes <= each.total_bytes

    @invariant()
    def every_slot_has_a_device_that_it_may_have(self) -> None:
        devices = set(self.places.inventory.devices)
        for servable in self.servables():
            assert all(slot.device in devices or not slot.stays for slot in servable.slots)
            alone = [slot.id for slot in servable.slots if slot.replaces is None and slot.succeeded_by is None]
            assert len(set(alone)) == len(alone)
            for slot in servable.slots:
                if slot.state in {SlotState.STARTING, SlotState.LOADING, SlotState.READY}:
                    assert not self.places.why_lost(slot.device)

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
TestDevicesOverTime.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
