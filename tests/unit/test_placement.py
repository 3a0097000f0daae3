"""Where replicas go: by example, and over random rooms."""

from collections import Counter
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
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
from tests.unit.refusal_text import Full, full_devices, named_devices

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
# Hardly less than all of the memory, so that much is placed: it is claims that use it up.
TAKEN = st.sampled_from([0, 0, 0, GIB, 3 * GIB])


@st.composite
def hosts(draw: st.DrawFn) -> list[Room]:
    rooms = []
    for number in range(draw(st.sampled_from([1, 2, 3, 3, 0]))):
        device = Device(f"gpu:{number}", f"GPU-{number}", "H1", draw(SIZES))
        budget_bytes = max(0, device.memory_bytes - draw(TAKEN))
        rooms.append(Room(device, budget_bytes, draw(st.sampled_from(["", "", "", "Xid 79"]))))
    return [*rooms, room(CPU)]


@st.composite
def policies(draw: st.DrawFn) -> DevicePolicy:
    first = draw(st.sampled_from(NAMES))
    more = draw(st.lists(st.sampled_from(NAMES[2:]), max_size=2)) if first not in {"auto", "all"} else []
    sizes = st.integers(1, 5).map(lambda gib: gib * GIB)
    return DevicePolicy((first, *more), draw(st.integers(1, 4)), draw(sizes), draw(st.sampled_from(Order)))


class Host:
    """Rooms, and by the test's own account what is on them."""

    def __init__(self, rooms: list[Room]) -> None:
        self.rooms = rooms
        self.claims: dict[SlotId, int] = {}

    def allows(self, policy: DevicePolicy, device: Device) -> bool:
        if policy.devices[0] in {"auto", "all"}:
            return device.is_gpu or len(self.rooms) == 1
        return any(device.is_called(name) for name in policy.devices)

    def living(self, policy: DevicePolicy) -> list[Room]:
        return [each for each in self.rooms if self.allows(policy, each.device) and not each.lost]

    def on(self, device_id: str) -> dict[SlotId, int]:
        return {slot: claim_bytes for slot, claim_bytes in self.claims.items() if slot.device == device_id}

    def fits(self, each: Room, need_bytes: int, without: Collection[SlotId] = ()) -> bool:
        held_bytes = sum(size for slot, size in self.on(each.device.id).items() if slot not in without)
        return not each.device.is_gpu or held_bytes + need_bytes <= each.budget_bytes

    def decide(self, id_: ServableId, policy: DevicePolicy, mine: Sequence[SlotId] = ()) -> Decision:
        """Place it; what always holds of a decision. Slots that are let go of stay in their rooms, as they drain."""
        need = Need(policy.memory_bytes)
        before = {each.device.id: sum(self.on(each.device.id).values()) for each in self.rooms}
        decision = place(id_, policy, self.rooms, mine=mine, need=lambda each: need if each.accounted else Need(0))
        for new in decision.add:
            assert new.slot not in self.claims
            self.claims[new.slot] = new.claim_bytes
            assert new.claim_bytes == (policy.memory_bytes if new.device.is_gpu else 0)
            assert new.device in [each.device for each in self.living(policy)]
        for each in self.rooms:
            assert (
                each.device.id == "cpu"
                or before[each.device.id] == sum(self.on(each.device.id).values())
                or (sum(self.on(each.device.id).values()) <= each.budget_bytes)
            )
        self.check_moves(policy, mine, decision)
        self.check_refusal(id_, policy, mine, decision)
        return decision

    def check_moves(self, policy: DevicePolicy, mine: Sequence[SlotId], decision: Decision) -> None:
        """As many stay as may, and no more come than lack then."""
        living = [each.device.id for each in self.living(policy)]
        if policy.devices == ("all",):
            wanted = dict.fromkeys(living, policy.replicas)
            assert decision.wanted == policy.replicas * max(1, len(living))
        else:
            wanted = {"": policy.replicas}
            assert decision.wanted == policy.replicas
        kept = [slot for slot in mine if slot not in decision.drop]
        for device, number in wanted.items():
            may_stay = [slot for slot in mine if slot.device in ([device] if device else living)]
            assert sum(slot in may_stay for slot in kept) == min(number, len(may_stay))
            coming = [new for new in decision.add if device in {"", new.device.id}]
            assert len(coming) <= max(0, number - len(may_stay))
        assert all(slot.device in living for slot in kept)

    def check_refusal(self, id_: ServableId, policy: DevicePolicy, mine: Sequence[SlotId], decision: Decision) -> None:
        """There is one exactly where some are missing; it names each device, and what it says is so."""
        kept = [slot for slot in mine if slot not in decision.drop]
        missing = decision.wanted - len(kept) - len(decision.add)
        assert missing >= 0
        assert bool(missing) == bool(decision.refusal)
        if not missing:
            return
        assert decision.refusal.startswith(f"{id_}: ")
        assert (f"{missing} of {decision.wanted} replicas" in decision.refusal) == (decision.wanted > 1)
        on = Counter([slot.device for slot in kept] + where(decision))
        allowed = [each for each in self.rooms if self.allows(policy, each.device)]
        full = {each.device: each for each in full_devices(decision.refusal)}
        if not allowed:
            assert "devices names " in decision.refusal
        for each in allowed:
            complete = policy.devices == ("all",) and on[each.device.id] == policy.replicas
            assert (each.device.id in named_devices(decision.refusal)) == (bool(each.lost) or not complete)
            assert each.lost or complete or not self.fits(each, policy.memory_bytes)
            if not each.lost and not complete:
                self.check_advice(id_, each, policy.memory_bytes, full[each.device.id])

    def check_advice(self, id_: ServableId, each: Room, need_bytes: int, said: Full) -> None:
        """Done what it says, the next one fits; with less done it would not. Where it says nothing, nothing helps."""
        held = self.on(each.device.id)
        assert said.needs_bytes == need_bytes
        assert abs(max(0, each.budget_bytes - sum(held.values())) - said.free_bytes) <= said.shown_to_bytes
        leaving = {slot for slot in held if {str(slot), str(slot.servable)} & set(said.leaving)}
        own = {slot for slot in leaving if slot.servable == id_}
        assert all(str(slot) in said.leaving for slot in own)
        if said.leaving:
            assert self.fits(each, need_bytes, leaving)
            for name in said.leaving:
                assert not self.fits(each, need_bytes, {s for s in leaving if name not in {str(s), str(s.servable)}})
        else:
            assert not self.fits(each, need_bytes, held)


@settings(max_examples=300)
@given(hosts(), st.lists(policies(), min_size=1, max_size=6), policies(), st.integers(0, 2), TAKEN)
def test_whatever_is_asked(
    rooms: list[Room], wishes: list[DevicePolicy], changed: DevicePolicy, number: int, taken_bytes: int
) -> None:
    """Never over budget, no slot without a living device that is allowed, reasons for what is missing, no moves."""
    host = Host(rooms)
    placed: dict[ServableId, tuple[DevicePolicy, list[SlotId]]] = {}
    for each, policy in enumerate(wishes):
        id_ = ServableId(f"m{each}", 1)
        placed[id_] = (policy, [new.slot for new in host.decide(id_, policy).add])
    # The same again changes nothing.
    for id_, (policy, mine) in placed.items():
        again = host.decide(id_, policy, mine)
        assert (again.add, again.drop) == ((), ())
    # A device is lost, or somebody takes of its memory: what was elsewhere, or has its place, stays.
    if number < len(rooms) - 1:
        if taken_bytes:
            rooms[number].budget_bytes = max(0, rooms[number].budget_bytes - taken_bytes)
        else:
            rooms[number].lost = "Xid 48"
    for id_, (policy, mine) in placed.items():
        moved = host.decide(id_, policy, mine)
        mine[:] = [*(slot for slot in mine if slot not in moved.drop), *(new.slot for new in moved.add)]
    # Another wish moves only what must move.
    id_ = next(iter(placed))
    host.decide(id_, changed, placed[id_][1])
