"""Several slots of one servable, and devices that are lost, in the manager: fake processes, a clock of the test's."""

from collections import Counter

from modelpool.supervisor.devices import CPU, Device, Inventory, Reading, Snapshot
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.placement import GIB, DevicePolicy
from modelpool.supervisor.places import Places
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code
from tests.unit.manager_world import KILLED, World

GPUS = tuple(Device(f"gpu:{number}", f"GPU-{number}", "H1") for number in range(2))


class Replicas(World):
    """A world whose model `m` has a device policy."""

    def __init__(
        self,
        policy: DevicePolicy,
        places: Places,
        transition: TransitionPolicy = TransitionPolicy.AVAILABILITY_PRESERVING,
    ) -> None:
        super().__init__(places=places)
        self.places = places
        self.transition = transition
        self.policy(policy)

    def policy(self, policy: DevicePolicy) -> None:
        self.manager.configure({"m": ModelSettings(transition=self.transition, devices=policy)})
        self.advance()

    def all_ready(self) -> None:
        """Every worker that is not told to go loads without trouble, and the frontend takes the routes."""
        for incarnation in set(self.alive) - self.doomed.keys():
            slot = self.manager.workers.slot(incarnation)
            assert slot is not None
            if slot.state is SlotState.STARTING:
                self.speak(incarnation)
        self.advance()
        self.ack()

    def where(self) -> Counter[str]:
        """Living workers by device."""
        return Counter(spawn.device.id for spawn in self.alive.values())

    def routed(self) -> set[Incarnation]:
        return {w.incarnation for m in self.tables[-1].models for v in m.versions for w in v.workers}

    def on(self, device: str) -> Incarnation:
        return next(i for i, spawn in self.alive.items() if spawn.device.id == device)

    def read(self, *readings: Reading) -> None:
        self.places.look(Snapshot(readings), self.now_s)
        self.advance()


def cpu_world(replicas: int = 2) -> Replicas:
    world = Replicas(DevicePolicy(("cpu",), replicas), Places(Inventory((CPU,))))
    world.aspire(1)
    world.all_ready()
    return world


def test_each_replica_is_a_worker_of_its_own_and_all_are_routed() -> None:
    world = cpu_world(3)
    assert world.where() == {"cpu": 3}
    assert world.routed() == set(world.alive)
    assert sorted(spawn.slot.replica for spawn in world.alive.values()) == [0, 1, 2]


def test_the_death_of_one_leaves_the_other_and_is_made_good() -> None:
    world = cpu_world()
    victim, other = sorted(world.alive)
    world.die(victim, KILLED)
    assert world.routed() == {other}
    assert world.states() == {1: ServableState.AVAILABLE}
    world.all_ready()
    assert len(world.routed()) == 2
    assert victim not in world.routed()


def test_more_and_fewer_replicas_by_reload() -> None:
    world = cpu_world(1)
    first = next(iter(world.alive))
    world.policy(DevicePolicy(("cpu",), 3))
    world.all_ready()
    assert len(world.routed()) == 3
    world.policy(DevicePolicy(("cpu",), 1))
    world.ack()
    world.bury()
    assert (set(world.alive), world.routed()) == ({first}, {first})
    world.advance()
    assert [slot.id.replica for servable in world.manager.models["m"].newest_first() for slot in servable.slots] == [0]


def test_the_same_configuration_again_moves_nothing() -> None:
    world = cpu_world(2)
    before = set(world.alive)
    world.policy(DevicePolicy(("cpu",), 2))
    world.policy(DevicePolicy(("auto",), 2))
    assert set(world.alive) == before
    assert world.doomed == {}


def test_another_device_is_served_before_the_old_one_goes() -> None:
    world = Replicas(DevicePolicy(("gpu:0",)), Places(Inventory((*GPUS, CPU))))
    world.aspire(1)
    world.all_ready()
    old = world.on("gpu:0")
    world.policy(DevicePolicy(("gpu:1",)))
    assert (world.where(), world.routed()) == ({"gpu:0": 1, "gpu:1": 1}, {old})
    world.all_ready()
    world.ack()
    world.bury()
    assert (world.where(), world.states()) == ({"gpu:1": 1}, {1: ServableState.AVAILABLE})


def test_resource_preserving_lets_the_old_one_go_first() -> None:
    policy = DevicePolicy(("gpu:0",))
    world = Replicas(policy, Places(Inventory((*GPUS, CPU))), TransitionPolicy.RESOURCE_PRESERVING)
    world.aspire(1)
    world.all_ready()
    world.policy(DevicePolicy(("gpu:1",)))
    world.ack()
    world.bury()
    assert world.where() == {"gpu:1": 1}


def test_a_lost_device_gives_its_slots_to_another() -> None:
    world = Replicas(DevicePolicy(("all",)), Places(Inventory((*GPUS, CPU))))
    world.policy(DevicePolicy(("auto",), 2))
    world.aspire(1)
    world.all_ready()
    assert world.where() == {"gpu:0": 1, "gpu:1": 1}
    old = world.on("gpu:0")
    world.read(Reading(GPUS[0], error="GPU is lost", gone=True), Reading(GPUS[1]))
    assert old in world.doomed
    assert world.where() == {"gpu:0": 1, "gpu:1": 2}
    assert sorted(spawn.part for incarnation, spawn in world.alive.items() if incarnation != old) == [0, 1]
    world.bury()
    world.all_ready()
    assert (world.where(), len(world.routed())) == ({"gpu:1": 2}, 2)
    assert any("its device was lost: GPU is lost" in death.cause for death in world.deaths)
    world.read(Reading(GPUS[0]), Reading(GPUS[1]))
    assert world.where() == {"gpu:1": 2}  # what is placed stays


def test_all_follows_the_devices_that_there_are() -> None:
    world = Replicas(DevicePolicy(("all",)), Places(Inventory((*GPUS, CPU))))
    world.aspire(1)
    world.all_ready()
    assert world.where() == {"gpu:0": 1, "gpu:1": 1}
    world.read(Reading(GPUS[0], error="GPU is lost", gone=True), Reading(GPUS[1]))
    world.bury()
    assert world.where() == {"gpu:1": 1}
    world.read(Reading(GPUS[0]), Reading(GPUS[1]))
    assert world.where() == {"gpu:0": 1, "gpu:1": 1}


def test_what_fits_nowhere_is_refused_with_its_reason_and_placed_when_there_is_room() -> None:
    gpu = Device("gpu:0", "GPU-a", "H1", 8 * GIB)
    world = Replicas(DevicePolicy(("gpu:0",), memory_bytes=5 * GIB), Places(Inventory((gpu, CPU))))
    world.aspire(1)
    world.read(Reading(gpu))
    world.all_ready()
    world.read(Reading(gpu, used_bytes=5 * GIB))
    world.aspire(1, 2)
    assert set(world.where()) == {"gpu:0"}
    status = {version.version: version for version in world.tables[-1].models[0].versions}
    assert (status[2].state, status[2].code) == (ServableState.END, Code.RESOURCE_EXHAUSTED)
    assert status[2].message == "m/2: needs 5.0 GiB, free on gpu:0 3.0 GiB, would fit there after unloading m/1"
    assert status[1].state is ServableState.AVAILABLE
    world.aspire(2)  # version 1 stays: nothing else answers
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}
    world.policy(DevicePolicy(("gpu:0",), memory_bytes=3 * GIB))
    world.read(Reading(gpu, used_bytes=5 * GIB))
    world.all_ready()
    world.bury()
    assert world.states()[2] is ServableState.AVAILABLE


def test_without_a_device_the_start_need_not_wait() -> None:
    world = Replicas(DevicePolicy(("gpu:3",)), Places(Inventory((CPU,))))
    world.aspire(1)
    assert world.manager.settled
    failure = world.manager.startup_failure()
    assert failure is not None
    assert "m/1: devices names gpu:3; this host has cpu" in failure.message


def test_a_model_whose_only_device_is_lost_waits_for_it() -> None:
    world = Replicas(DevicePolicy(("gpu:0",)), Places(Inventory((GPUS[0], CPU))))
    world.aspire(1)
    world.all_ready()
    world.read(Reading(GPUS[0], error="GPU is lost", gone=True))
    world.bury()
    assert world.alive == {}
    (version,) = world.tables[-1].models[0].versions
    assert (version.code, version.message) == (Code.RESOURCE_EXHAUSTED, "m/1: gpu:0 is lost (GPU is lost)")
    world.read(Reading(GPUS[0]))
    world.all_ready()
    assert world.states() == {1: ServableState.AVAILABLE}
