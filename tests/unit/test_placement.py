"""Where replicas go: by example, and over random rooms."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.devices import CPU, Device
from modelpool.supervisor.placement import (
    GIB,
    Decision,
    DevicePolicy,
    Need,
    Order,
    Room,
    Tenant,
    amount,
    place,
    unknown_names,
)
from modelpool.supervisor.wire.ids import ServableId, SlotId

M = ServableId("m", 1)


def gpu(number: int, gib: float = 8) -> Device:
    return Device(f"gpu:{number}", f"GPU-{number}", "H1", int(gib * GIB))


def room(device: Device, *tenants: tuple[str, float], lost: str = "") -> Room:
    """A device with tenants of so many GiB."""
    slots = [Tenant(SlotId(ServableId(name, 1), device.id), int(gib * GIB)) for name, gib in tenants]
    return Room(device, device.memory_bytes, lost, slots)


def decide(
    rooms: Sequence[Room], policy: DevicePolicy | None = None, mine: Sequence[SlotId] = (), gib: float = 2
) -> Decision:
    need = Need(int(gib * GIB))
    return place(M, policy or DevicePolicy(), rooms, mine=mine, need=lambda room: need if room.accounted else Need(0))


def where(decision: Decision) -> list[str]:
    return [new.device.id for new in decision.add]


def on(*devices: str) -> list[SlotId]:
    return [SlotId(M, device, number) for number, device in enumerate(devices)]


def test_auto_is_a_gpu_or_the_cpu_of_a_host_without() -> None:
    assert where(decide([room(CPU)])) == ["cpu"]
    assert where(decide([room(gpu(0)), room(CPU)])) == ["gpu:0"]
    assert where(decide([room(gpu(0)), room(CPU)], DevicePolicy(("cpu",), 2))) == ["cpu", "cpu"]


def test_all_is_each_gpu() -> None:
    rooms = [room(gpu(0)), room(gpu(1)), room(CPU)]
    decision = decide(rooms, DevicePolicy(("all",), 2))
    assert Counter(where(decision)) == {"gpu:0": 2, "gpu:1": 2}
    assert [new.slot.replica for new in decision.add] == [0, 1, 2, 3]
    assert decision.wanted == 4
    assert where(decide([room(CPU)], DevicePolicy(("all",), 3))) == ["cpu"] * 3


def test_devices_are_named_by_number_or_uuid() -> None:
    rooms = [room(gpu(0)), room(gpu(1)), room(gpu(2)), room(CPU)]
    assert where(decide(rooms, DevicePolicy(("GPU-2", "gpu:1"), 2))) == ["gpu:1", "gpu:2"]
    policy = DevicePolicy(("gpu:7", "MIG-x"))
    assert decide(rooms, policy).refusal == "m/1: devices names gpu:7, MIG-x; this host has gpu:0, gpu:1, gpu:2, cpu"
    assert unknown_names(DevicePolicy(("gpu:7", "gpu:0", "cpu")), [each.device for each in rooms]) == ("gpu:7",)
    assert unknown_names(DevicePolicy(), [CPU]) == ()


def test_spread_takes_the_emptiest_and_pack_the_fullest_that_fits() -> None:
    def rooms() -> list[Room]:
        return [room(gpu(0), ("a", 1), ("b", 1)), room(gpu(1), ("c", 3)), room(gpu(2), ("d", 5), ("e", 2))]

    assert where(decide(rooms())) == ["gpu:1"]
    assert where(decide(rooms(), DevicePolicy(order=Order.PACK))) == ["gpu:1"]
    assert where(decide(rooms(), DevicePolicy(order=Order.PACK), gib=1)) == ["gpu:2"]


@pytest.mark.parametrize("order", Order)
def test_replicas_keep_apart_where_they_can(order: Order) -> None:
    rooms = [room(gpu(0)), room(gpu(1), ("a", 1)), room(gpu(2), ("b", 7))]
    counts = Counter(where(decide(rooms, DevicePolicy(replicas=3, order=order))))
    assert counts == ({"gpu:0": 2, "gpu:1": 1} if order is Order.SPREAD else {"gpu:0": 1, "gpu:1": 2})


@pytest.mark.parametrize("order", Order)
def test_a_gpu_goes_before_the_cpu(order: Order) -> None:
    assert where(decide([room(gpu(0)), room(CPU)], DevicePolicy(("cpu", "gpu:0"), order=order))) == ["gpu:0"]


def test_what_is_placed_stays() -> None:
    rooms = [room(gpu(0), ("a", 4), ("m", 2)), room(gpu(1))]
    assert decide(rooms, mine=on("gpu:0")) == Decision(1)
    more = decide(rooms, DevicePolicy(replicas=2), mine=on("gpu:0"))
    assert (where(more), more.drop, more.add[0].slot.replica) == (["gpu:1"], (), 1)
    fewer = decide(rooms, DevicePolicy(replicas=1), mine=on("gpu:0", "gpu:1"))
    assert (fewer.add, fewer.drop) == ((), (SlotId(M, "gpu:1", 1),))
    elsewhere = decide(rooms, DevicePolicy(("gpu:1",)), mine=on("gpu:0"))
    assert (where(elsewhere), elsewhere.drop) == (["gpu:1"], (SlotId(M, "gpu:0", 0),))


def test_slots_of_a_lost_device_go_to_another_where_they_fit() -> None:
    def rooms(gib: float) -> list[Room]:
        return [room(gpu(0), ("m", 2), lost="Xid 79"), room(gpu(1), ("a", gib))]

    moved = decide(rooms(6), mine=on("gpu:0"))
    assert (where(moved), moved.drop, moved.refusal) == (["gpu:1"], tuple(on("gpu:0")), "")
    stuck = decide(rooms(7), mine=on("gpu:0"))
    assert (stuck.add, stuck.drop) == ((), tuple(on("gpu:0")))
    assert stuck.refusal == (
        "m/1: needs 2.0 GiB, free on gpu:1 1.0 GiB, would fit there after unloading a/1; gpu:0 is lost (Xid 79)"
    )


def test_a_refusal_says_what_would_have_to_go() -> None:
    rooms = [room(gpu(0), ("a", 3), ("b", 1.1), ("c", 0.5)), room(gpu(1, 4), ("d", 0.2), ("e", 3.5)), room(gpu(2, 3))]
    refusal = decide(rooms, gib=5.05, policy=DevicePolicy(("gpu:0",))).refusal
    assert refusal == "m/1: needs 5.1 GiB, free on gpu:0 3.4 GiB, would fit there after unloading a/1"
    refusal = decide(rooms, gib=7.5).refusal
    assert refusal == (
        "m/1: needs 7.5 GiB, free on gpu:0 3.4 GiB, would fit there after unloading a/1, b/1; "
        "needs 7.5 GiB, free on gpu:1 307 MiB, which would not be enough if it were empty (4.0 GiB); "
        "needs 7.5 GiB, free on gpu:2 3.0 GiB, which would not be enough if it were empty (3.0 GiB)"
    )
    refusal = decide([room(gpu(0))], DevicePolicy(replicas=3), gib=5).refusal
    assert (
        refusal
        == "m/1: 2 of 3 replicas: needs 5.0 GiB, free on gpu:0 3.0 GiB, would fit there after unloading m/1@gpu:0#0"
    )


def test_without_any_living_device_it_says_so() -> None:
    for devices in (("auto",), ("all",), ("gpu:0",)):
        decision = decide([room(gpu(0), lost="Xid 79"), room(CPU)], DevicePolicy(devices))
        assert (decision.add, decision.refusal) == ((), "m/1: gpu:0 is lost (Xid 79)")


def test_what_cannot_run_there_at_all() -> None:
    decision = place(M, DevicePolicy(), [room(gpu(0))], mine=(), need=lambda room: Need(5, "too little"))
    assert decision.refusal == "m/1: on gpu:0: too little"


def test_amounts() -> None:
    assert [amount(n) for n in (0, GIB - 1, GIB, int(5.19 * GIB))] == ["0 MiB", "1023 MiB", "1.0 GiB", "5.1 GiB"]
    assert [amount(n, up=True) for n in (1, int(5.11 * GIB))] == ["1 MiB", "5.2 GiB"]


# -- random ----------------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 9).map(lambda gib: gib * GIB)
NAMES = ["auto", "all", "cpu", "gpu:0", "gpu:1", "gpu:2", "gpu:9", "GPU-1"]


@st.composite
def hosts(draw: st.DrawFn) -> list[Room]:
    rooms = []
    for number in range(draw(st.integers(0, 3))):
        device = Device(f"gpu:{number}", f"GPU-{number}", "H1", draw(SIZES))
        rooms.append(Room(device, draw(st.integers(0, device.memory_bytes)), draw(st.sampled_from(["", "", "lost"]))))
    return [*rooms, room(CPU)]


@st.composite
def policies(draw: st.DrawFn) -> DevicePolicy:
    first = draw(st.sampled_from(NAMES))
    more = draw(st.lists(st.sampled_from(NAMES[2:]), max_size=2)) if first not in {"auto", "all"} else []
    return DevicePolicy((first, *more), draw(st.integers(1, 4)), draw(SIZES), draw(st.sampled_from(Order)))


@given(hosts(), st.lists(policies(), min_size=1, max_size=6), policies())
def test_whatever_is_asked(rooms: list[Room], wishes: list[DevicePolicy], changed: DevicePolicy) -> None:
    """Never over budget, no slot without a living device that is allowed, reasons for what is missing, no moves."""
    decisions: list[tuple[ServableId, DevicePolicy, Decision]] = []

    def decide_for(id_: ServableId, policy: DevicePolicy, mine: Sequence[SlotId]) -> Decision:
        need = Need(policy.memory_bytes)
        return place(id_, policy, rooms, mine=mine, need=lambda room: need if room.accounted else Need(0))

    for number, policy in enumerate(wishes):
        id_ = ServableId(f"m{number}", 1)
        decisions.append((id_, policy, decide_for(id_, policy, ())))
    for _, policy, decision in decisions:
        assert (len(decision.add) < decision.wanted) == bool(decision.refusal)
        assert len(decision.add) <= decision.wanted
        assert not decision.drop
        for new in decision.add:
            named = any(new.device.is_called(name) for name in policy.devices)
            auto = policy.devices[0] in {"auto", "all"} and (new.device.is_gpu or len(rooms) == 1)
            assert named or auto
            assert not next(each.lost for each in rooms if each.device.id == new.device.id)
    for each in rooms:
        assert not each.accounted or sum(tenant.claim_bytes for tenant in each.tenants) <= each.budget_bytes
    # The same again changes nothing; another wish moves only what must move.
    id_, policy, decision = decisions[0]
    mine = [new.slot for new in decision.add]
    again = decide_for(id_, policy, mine)
    assert (again.drop, len(again.add)) == ((), 0)
    after = decide_for(id_, changed, mine)
    kept = [slot for slot in mine if slot not in after.drop]
    may_stay = [slot for slot in mine if _may_stay(slot, changed, rooms)]
    assert set(kept) <= set(may_stay)
    assert len(kept) >= min(len(may_stay), after.wanted) or changed.devices == ("all",)
    assert not set(after.drop) & {new.slot for new in after.add}


def _may_stay(slot: SlotId, policy: DevicePolicy, rooms: Sequence[Room]) -> bool:
    home = next(each for each in rooms if each.device.id == slot.device)
    if policy.devices[0] in {"auto", "all"}:
        return home.device.is_gpu or len(rooms) == 1
    return any(home.device.is_called(name) for name in policy.devices)
