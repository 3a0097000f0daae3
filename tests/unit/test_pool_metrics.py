"""What the supervisor counts and measures of its workers, over the manager's fake world."""

import pynvml

from modelpool.supervisor.arenas import SharedMemory
from modelpool.supervisor.commands import Command, Spawn
from modelpool.supervisor.devices import Inventory
from modelpool.supervisor.exits import Exit
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.places import Places
from modelpool.supervisor.pool_metrics import PoolMetrics
from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.metric_messages import MetricsReport
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.sockets import Peer
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary
from tests.prometheus_text import Page, parse
from tests.unit.manager_world import KILLED, World

RESTARTS = "modelpool_worker_restarts_total"


class MeasuredWorld(World):
    """A world whose pool keeps metrics, as `Pool` does."""

    def __init__(self, places: Places | None = None) -> None:
        super().__init__(places=places)
        self.metrics = PoolMetrics(self.manager)

    def advance(self) -> list[Command]:
        commands = super().advance()
        for command in commands:
            if isinstance(command, Spawn):
                self.metrics.spawned(command.slot)
        return commands

    def die(self, incarnation: Incarnation, exit_: Exit) -> None:
        self.metrics.worker_ended(incarnation, exit_)
        super().die(incarnation, exit_)

    def page(self) -> Page:
        return parse(self.metrics.page({}, 0, None, SharedMemory(3, 5, 7)).decode())


def test_restarts_are_counted_by_cause() -> None:
    world = MeasuredWorld()
    world.aspire(1)
    world.fail_load(1, permanent=False)
    assert world.page().total(RESTARTS) == 0  # it waits for its next try
    world.sleep(60)
    world.ready(1)
    for exit_ in (KILLED, Exit(None, 11, "killed by SIGSEGV"), Exit(1, None, "exited with code 1")):
        world.die(world.incarnation(1), exit_)
        world.ready(1)
    page = world.page()
    for cause in ("load_failed", "SIGKILL", "SIGSEGV", "exit"):
        assert page.value(RESTARTS, model="m", version="1", cause=cause) == 1, cause
    assert page.total(RESTARTS) == 4


def test_a_hang_is_its_own_cause() -> None:
    world = MeasuredWorld()
    world.aspire(1)
    world.ready(1)
    for _ in range(16):  # in steps too small to be a pause of the supervisor itself
        world.sleep(2)
    assert world.doomed
    world.bury()
    assert world.page().value(RESTARTS, model="m", version="1", cause="hang") == 1


def test_shared_memory_of_all() -> None:
    page = MeasuredWorld().page()
    names = ("used", "reserved", "limit")
    assert [page.value(f"modelpool_shared_memory_{name}_bytes") for name in names] == [3, 5, 7]


def test_an_unload_is_no_restart() -> None:
    world = MeasuredWorld()
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.aspire(2)
    world.ready(2)
    for _ in range(3):
        world.ack()
        world.bury()
    page = world.page()
    assert page.total(RESTARTS) == 0
    assert page.total("modelpool_worker_up", version="2") == 1
    assert page.total("modelpool_worker_up", version="1") == 0


def test_devices_and_what_is_on_them() -> None:
    gpus = (
        FakeGpu("GPU-a", 8 * GIB, driver_bytes=GIB, utilization=25, ecc=2),
        FakeGpu("GPU-b", 4 * GIB, utilization=None),
    )
    nvml = RealNvml(FakeLibrary(*gpus))
    world = MeasuredWorld(Places(Inventory.of(nvml.look())))
    world.manager.configure({"m": ModelSettings(devices=DevicePolicy(("gpu:0",), memory_bytes=2 * GIB))})
    world.aspire(1)
    gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
    world.manager.places.look(nvml.look(), 2000.0)
    page = world.page()
    up, uuids = "modelpool_device_up", {"gpu:0": "GPU-a", "gpu:1": "GPU-b", "cpu": ""}
    assert {id_: page.value(up, device=id_, uuid=uuid) for id_, uuid in uuids.items()} == {
        "gpu:0": 1,
        "gpu:1": 0,
        "cpu": 1,
    }
    assert page.value("modelpool_device_workers", device="gpu:0") == 1
    assert page.value("modelpool_device_memory_bytes", device="gpu:1") == 4 * GIB
    assert page.value("modelpool_device_memory_claimed_bytes", device="gpu:0") == 2 * GIB
    assert page.total("modelpool_device_memory_used_bytes") == GIB  # of those that answer
    assert page.total("modelpool_device_utilization_ratio") == 0.25
    assert page.total("modelpool_device_ecc_errors") == 2


def test_only_those_who_said_hello_are_heard() -> None:
    world = MeasuredWorld()
    registry = Registry()
    registry.counter(families.REQUEST_LOG_COUNT, "m", "OK").add()
    report = MetricsReport(registry.changed())
    worker = Incarnation(1)
    world.metrics.reported(Peer.WORKER, worker, report)
    assert world.page().total(families.REQUEST_LOG_COUNT.name) == 0
    world.metrics.joined(Peer.WORKER, worker)
    world.metrics.reported(Peer.WORKER, worker, report)
    assert world.page().value(families.REQUEST_LOG_COUNT.name, model_name="m", status_code="OK") == 1
