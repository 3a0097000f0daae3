"""What a process may take of a GPU: declared, measured, by fraction, or unknown; and TensorFlow's part of it."""

from modelpool.supervisor.devices import CPU, Inventory
from modelpool.supervisor.ledger import SLACK_BYTES
from modelpool.supervisor.memory_book import DEFAULT_OVERHEAD_BYTES, MemoryBook
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import GIB, DevicePolicy
from modelpool.supervisor.places import MARGIN, Places
from modelpool.supervisor.restart import RestartHistory, RestartPolicy
from modelpool.supervisor.servable import Servable, Slot
from modelpool.supervisor.wire.ids import Incarnation, ServableId, SlotId
from modelpool.supervisor.wire.status import Code
from tests.fake_nvml import FakeGpu, FakeLibrary

M = ServableId("m", 1)
OVERHEAD = 300 << 20


class Bench:
    """One GPU of 16 GiB, of which the driver has one."""

    def __init__(self, fraction: float = 0.0) -> None:
        self.gpu = FakeGpu("GPU-a", 16 * GIB, driver_bytes=GIB)
        self.nvml = RealNvml(FakeLibrary(self.gpu))
        self.book = MemoryBook()
        self.places = Places(Inventory.of(self.nvml.look()), self.book, fraction)

    def claim(self, policy: DevicePolicy | None = None) -> int | str:
        """What a first process is given, or why it is not."""
        decision = self.places.arrange(Servable(M, "/m/1"), policy or DevicePolicy(), self.places.rooms([]))
        return decision.add[0].claim_bytes if decision.add else decision.refusal

    def limit(self, claim_bytes: int, policy: DevicePolicy | None = None) -> int:
        return self.places.limit_bytes(self.slot(claim_bytes), policy or DevicePolicy())

    def slot(self, claim_bytes: int) -> Slot:
        (device,) = self.places.inventory.gpus
        history = RestartHistory(RestartPolicy(), lambda: 0.0)
        return Slot(SlotId(M, device.id), device, history, claim_bytes)

    def look(self, now_s: float) -> bool:
        return self.places.look(self.nvml.look(), now_s)


def test_what_is_declared_is_the_process() -> None:
    bench = Bench()
    policy = DevicePolicy(memory_bytes=4 * GIB)
    assert bench.claim(policy) == 4 * GIB
    assert bench.limit(4 * GIB, policy) == 4 * GIB - DEFAULT_OVERHEAD_BYTES
    bench.book.note(M, "Fake H1", 2 * GIB, 2 * GIB - OVERHEAD)
    assert bench.claim(policy) == 4 * GIB
    assert bench.limit(4 * GIB, policy) == 4 * GIB - OVERHEAD


def test_what_cuda_itself_would_eat_up_is_refused() -> None:
    refusal = Bench().claim(DevicePolicy(memory_bytes=GIB // 2))
    assert refusal == "m/1: on gpu:0: gpu_memory_mb declares 512 MiB, of which CUDA itself takes 512 MiB on Fake H1"


def test_what_was_measured_has_a_margin() -> None:
    bench = Bench()
    bench.book.note(M, "Fake H1", 4 * GIB, 0)
    assert bench.claim() == int(4 * GIB * MARGIN)
    bench.book.note(M, "Fake H1", 11 * GIB, 0)
    assert bench.claim() == (
        "m/1: needs 16.5 GiB, free on gpu:0 15.0 GiB, which would not be enough if it were empty (15.0 GiB)"
    )


def test_what_nobody_knows_gets_half_of_what_is_free_never_all() -> None:
    bench = Bench()
    assert bench.claim() == int(7.5 * GIB)
    assert bench.limit(int(7.5 * GIB)) == int(7.5 * GIB) - DEFAULT_OVERHEAD_BYTES
    bench.gpu.processes[99] = int(14.5 * GIB)
    bench.look(1.0)
    assert bench.claim() == (
        "m/1: needs 1.0 GiB or more, as it was never measured, free on gpu:0 512 MiB, "
        "which would not be enough if it were empty (512 MiB)"
    )


def test_a_fraction_is_a_share_of_the_gpu_and_tensorflow_keeps_to_it_itself() -> None:
    bench = Bench(fraction=0.25)
    assert bench.claim() == 4 * GIB + DEFAULT_OVERHEAD_BYTES
    assert bench.limit(4 * GIB + DEFAULT_OVERHEAD_BYTES) == 0
    declared = DevicePolicy(memory_bytes=2 * GIB)  # says more about this model than the flag does
    assert bench.claim(declared) == 2 * GIB
    assert bench.limit(2 * GIB, declared) == 2 * GIB - DEFAULT_OVERHEAD_BYTES


def test_advice_counts_what_others_have_taken_of_what_is_claimed() -> None:
    """Claims of 9 and 6 GiB on what are 15 GiB, of which somebody has taken 3 since: without one 3 or 6 are left."""
    bench = Bench()
    tenants = [bench.slot(9 * GIB), bench.slot(6 * GIB)]
    for slot, name in zip(tenants, "ab", strict=True):
        slot.id = SlotId(ServableId(name, 1), "gpu:0")
    bench.gpu.held_bytes["somebody"] = 3 * GIB
    bench.look(1.0)
    policy = DevicePolicy(memory_bytes=5 * GIB)
    refusal = bench.places.arrange(Servable(M, "/m/1"), policy, bench.places.rooms(tenants)).refusal
    assert refusal == "m/1: needs 5.0 GiB, free on gpu:0 0 MiB, would fit there after unloading a/1"


def test_a_fraction_is_no_more_than_what_others_have_left() -> None:
    """As in TensorFlow, whose allocator takes less where there is less."""
    bench = Bench(fraction=1.0)
    assert bench.claim() == 15 * GIB - SLACK_BYTES
    slot = bench.slot(15 * GIB - SLACK_BYTES)
    bench.gpu.held_bytes["somebody"] = 3 * GIB
    bench.look(1.0)
    assert bench.places.may_start(slot, DevicePolicy(), bench.places.rooms([slot]), 1.0)
    assert slot.claim_bytes == 12 * GIB - SLACK_BYTES
    bench.gpu.held_bytes["somebody"] = 15 * GIB
    bench.look(2.0)
    assert "needs " in str(bench.claim())


def test_the_cpu_has_no_figures() -> None:
    places = Places(Inventory((CPU,)))
    (place,) = places.arrange(Servable(M, "/m/1"), DevicePolicy(memory_bytes=GIB), places.rooms([])).add
    assert (place.device, place.claim_bytes) == (CPU, 0)


def test_measured_at_load_and_taken_into_the_book() -> None:
    bench = Bench()
    slot = bench.slot(8 * GIB)
    assert bench.places.may_start(slot, DevicePolicy(), [], 1.0)
    bench.places.started(slot, DevicePolicy(), Incarnation(1))
    bench.gpu.processes[4711] = 3 * GIB  # the host's pid: ours is another
    bench.places.ledger.spawned(Incarnation(1), 7)
    bench.places.ledger.ready(Incarnation(1), 3 * GIB - OVERHEAD, 2.0)
    assert bench.look(3.0)
    assert (bench.book.need_bytes(M, "Fake H1"), bench.book.overhead_bytes("Fake H1")) == (3 * GIB, OVERHEAD)
    assert not bench.look(4.0)
    assert bench.claim() == int(3 * GIB * MARGIN)


def test_memory_that_somebody_else_took_meanwhile_is_an_error_of_the_slot_until_it_is_free() -> None:
    bench = Bench()
    slot = bench.slot(8 * GIB)
    bench.gpu.held_bytes["somebody"] = 9 * GIB
    bench.look(1.0)
    assert not bench.places.may_start(slot, DevicePolicy(), [], 1.0)
    assert slot.waits_for == "m/1: needs 8.0 GiB, free on gpu:0 6.0 GiB at the moment"
    assert (slot.error.code, slot.error.message) == (Code.RESOURCE_EXHAUSTED, slot.waits_for)
    bench.gpu.held_bytes.clear()
    bench.look(2.0)
    assert bench.places.may_start(slot, DevicePolicy(), [], 2.0)
    assert slot.waits_for == ""


def test_loads_side_by_side_leave_room_for_each_other() -> None:
    """Where others hold more than was known when they were placed, no two may start on the same free memory."""
    bench = Bench()
    policy = DevicePolicy(memory_bytes=5 * GIB)
    first, second = bench.slot(5 * GIB), bench.slot(5 * GIB)
    bench.gpu.held_bytes["somebody"] = 7 * GIB  # 8 GiB are free
    bench.look(1.0)
    assert bench.places.may_start(first, policy, [], 1.0)
    bench.places.started(first, policy, Incarnation(1))
    bench.places.ledger.spawned(Incarnation(1), 7)
    assert not bench.places.may_start(second, policy, [], 1.0)
    assert second.waits_for == "what others that are being loaded on gpu:0 take"
    assert second.error.code is Code.OK  # it is nobody's fault, and passes
    bench.gpu.processes[7] = 2 * GIB
    bench.places.ledger.ready(Incarnation(1), 0, 2.0)
    bench.look(3.0)
    assert bench.places.may_start(second, policy, [], 3.0)


def test_a_claim_follows_what_was_learnt_when_the_next_process_starts() -> None:
    bench = Bench()
    slot = bench.slot(int(7.5 * GIB))
    bench.book.note(M, "Fake H1", 2 * GIB, 0)
    assert bench.places.renew(slot, DevicePolicy(), bench.places.rooms([slot])) == ""
    assert slot.claim_bytes == 3 * GIB
    neighbour = bench.slot(11 * GIB)
    neighbour.id = SlotId(ServableId("n", 1), "gpu:0")
    why = bench.places.renew(slot, DevicePolicy(memory_bytes=5 * GIB), bench.places.rooms([slot, neighbour]))
    assert (slot.claim_bytes, why) == (3 * GIB, "needs 5.0 GiB, free on gpu:0 4.0 GiB")  # there is no room for more
    why = bench.places.renew(slot, DevicePolicy(memory_bytes=GIB // 4), bench.places.rooms([slot, neighbour]))
    assert (slot.claim_bytes, why[:22]) == (3 * GIB, "gpu_memory_mb declares")
    assert not bench.places.renew(slot, DevicePolicy(memory_bytes=4 * GIB), bench.places.rooms([slot, neighbour]))
    assert slot.claim_bytes == 4 * GIB
