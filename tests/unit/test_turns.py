"""The order in which models that come together are placed; and that a start and `modelpool plan` place alike."""

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor import turns
from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.devices import Inventory
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import Model, ModelSettings
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import GIB, DevicePolicy, Order
from modelpool.supervisor.places import Places
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.servable import Servable
from modelpool.supervisor.turns import Turns
from modelpool.supervisor.wire.ids import ServableId
from modelpool.supervisor.wire.status import Code, Status
from tests.fake_nvml import FakeGpu, FakeLibrary


def models(*polled: bool) -> list[Model]:
    return [Model(name, polled=each) for name, each in zip("abc", polled, strict=False)]


def test_a_model_waits_for_those_before_it() -> None:
    assert set(Turns().waiting(models(True, False, False), 0.0)) == {"c"}
    assert set(Turns().waiting(models(False, True, True), 0.0)) == {"b", "c"}
    assert set(Turns().waiting(models(True, True, True), 0.0)) == set()


def test_nobody_waits_without_end() -> None:
    of, late = Turns(), models(False, True)
    assert set(of.waiting(late, 10.0)) == {"b"}
    assert of.due_s == 10.0 + turns.LOOK_S
    assert set(of.waiting(late, 10.0 + turns.LOOK_S)) == set()
    assert of.due_s is None


def test_one_that_is_not_configured_any_more_is_not_waited_for() -> None:
    of, late = Turns(), models(False, True)
    late[0].configured = False
    assert set(of.waiting(late, 10.0)) == set()
    assert of.due_s is None


# -- start and plan ----------------------------------------------------------------------------------------------

SIZES = st.sampled_from([GIB, 2 * GIB, 3 * GIB, 5 * GIB])
POLICIES = st.builds(
    DevicePolicy,
    devices=st.sampled_from([("auto",), ("all",), ("gpu:0",), ("gpu:1", "cpu"), ("cpu",)]),
    replicas=st.integers(1, 2),
    memory_bytes=SIZES,
    order=st.sampled_from(Order),
)
WISHES = st.lists(st.tuples(POLICIES, st.sets(st.integers(1, 3), max_size=2)), min_size=1, max_size=5)


def planned(places: Places, wishes: Sequence[tuple[DevicePolicy, set[int]]]) -> dict[ServableId, tuple[object, ...]]:
    """What `modelpool plan` says: model by model, the newest version first."""
    rooms, found = places.rooms(()), {}
    for number, (policy, versions) in enumerate(wishes):
        for version in sorted(versions, reverse=True):
            servable = Servable(ServableId(f"m{number}", version), "")
            decision = places.arrange(servable, policy, rooms)
            slots = {(each.slot, each.claim_bytes) for each in decision.add}
            found[servable.id] = (slots, decision.wanted, bool(decision.refusal))
    return found


def started(
    places: Places, wishes: Sequence[tuple[DevicePolicy, set[int]]], chooser: random.Random
) -> dict[ServableId, tuple[object, ...]]:
    """What a start comes to when the sources answer in any order, and some cannot look."""
    manager = Manager(ManagerOptions(100, lambda n: f"ipc:///w{n}", lambda: 0.0, RestartPolicy(), places=places))
    manager.configure({f"m{n}": ModelSettings(devices=policy) for n, (policy, _) in enumerate(wishes)})
    now_s = 100.0
    manager.advance(now_s)
    for number in chooser.sample(range(len(wishes)), len(wishes)):
        versions = wishes[number][1]
        if versions:
            manager.aspire(f"m{number}", {version: f"/m/{version}" for version in versions})
        else:
            manager.source_failed(f"m{number}", Status(Code.NOT_FOUND, "no such folder"))
        now_s += chooser.choice([0.0, 0.1])
        manager.advance(now_s)
    servables = [servable for model in manager.models.values() for servable in model.newest_first()]
    return {
        each.id: ({(slot.id, slot.claim_bytes) for slot in each.slots}, each.wanted_slots, bool(each.refusal))
        for each in servables
    }


@given(st.lists(st.integers(2, 9), max_size=3), WISHES, st.integers(0, 1 << 30))
@settings(max_examples=150)
def test_a_start_places_as_planned(sizes: list[int], wishes: list[tuple[DevicePolicy, set[int]]], seed: int) -> None:
    gpus = [FakeGpu(f"GPU-{n}", size * GIB, driver_bytes=GIB // 4) for n, size in enumerate(sizes)]
    nvml = RealNvml(FakeLibrary(*gpus))
    plan = planned(Places(Inventory.of(nvml.look())), wishes)
    assert started(Places(Inventory.of(nvml.look())), wishes, random.Random(seed)) == plan


def test_a_manager_that_stops_has_nothing_due() -> None:
    """It would be called again and again for a turn that nobody takes any more."""
    nvml = RealNvml(FakeLibrary(FakeGpu("GPU-0", 8 * GIB)))
    places = Places(Inventory.of(nvml.look()))
    manager = Manager(ManagerOptions(100, lambda n: f"ipc:///w{n}", lambda: 0.0, RestartPolicy(), places=places))
    manager.configure({"a": ModelSettings(), "b": ModelSettings()})
    manager.aspire("b", {1: "/b/1"})
    manager.advance(100.0)
    assert manager.next_deadline_s() == 100.0 + turns.LOOK_S
    manager.shut_down(101.0)
    manager.advance(101.0)
    assert manager.next_deadline_s() is None


def test_patience_ends_by_itself() -> None:
    nvml = RealNvml(FakeLibrary(FakeGpu("GPU-0", 8 * GIB)))
    places = Places(Inventory.of(nvml.look()))
    manager = Manager(ManagerOptions(100, lambda n: f"ipc:///w{n}", lambda: 0.0, RestartPolicy(), places=places))
    manager.configure({"a": ModelSettings(), "b": ModelSettings()})
    manager.aspire("b", {1: "/b/1"})
    assert [each for each in manager.advance(100.0) if isinstance(each, Spawn)] == []
    due_s = manager.next_deadline_s()
    assert due_s is not None
    assert [each.slot.servable for each in manager.advance(due_s) if isinstance(each, Spawn)] == [ServableId("b", 1)]
