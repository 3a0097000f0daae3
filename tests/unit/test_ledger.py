"""What each process takes, what others take, and when the memory of the dead is free: readings by a scripted NVML."""

import pynvml
import pytest

from modelpool.supervisor.devices import Device
from modelpool.supervisor.ledger import CONFIRM_S, READ_WITHIN_S, Ledger
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.wire.ids import Incarnation, ServableId, SlotId
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

DRIVER = GIB // 2


class Bench:
    """One GPU, on which processes take memory under the pids that NVML names: ours, or the host's (`contained`)."""

    def __init__(self, *, contained: bool = False) -> None:
        self.contained = contained
        self.gpu = FakeGpu("GPU-a", 16 * GIB, driver_bytes=DRIVER)
        self.library = FakeLibrary(self.gpu)
        self.nvml = RealNvml(self.library)
        self.device = self.nvml.look().readings[0].device
        self.ledger = Ledger()
        self.now_s = 100.0
        self.read()

    def read(self) -> dict[str, int]:
        """Look; what was measured, by servable."""
        self.now_s += 1.0
        measured = self.ledger.read(self.nvml.look().readings, self.now_s)
        self.now_s += 1.0
        return {str(each.slot.servable): each.process_bytes for each in measured}

    def start(self, number: int, *, known: bool = False) -> None:
        slot = SlotId(ServableId(f"m{number}", 1), "gpu:0")
        self.ledger.started(Incarnation(number), slot, self.device, known=known)
        self.ledger.spawned(Incarnation(number), number)

    def take(self, number: int, size_bytes: int | None) -> None:
        self.gpu.processes[number + (5000 if self.contained else 0)] = size_bytes

    def give_back(self, number: int) -> None:
        del self.gpu.processes[number + (5000 if self.contained else 0)]

    def ready(self, number: int, peak_bytes: int = 0) -> None:
        self.ledger.ready(Incarnation(number), peak_bytes, self.now_s)

    def load(self, number: int, size_bytes: int) -> dict[str, int]:
        self.start(number)
        self.take(number, size_bytes)
        self.ready(number)
        return self.read()

    def die(self, number: int) -> None:
        self.ledger.exited(Incarnation(number), self.now_s)

    def busy(self, *, known: bool = False, urgent: bool = False) -> str:
        return self.ledger.busy(self.device, self.now_s, known=known, urgent=urgent)


@pytest.fixture(params=[False, True], ids=["own pids", "host pids"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(contained=request.param)


def test_a_load_is_measured(bench: Bench) -> None:
    assert bench.load(1, 3 * GIB) == {"m1/1": 3 * GIB}
    assert bench.load(2, 2 * GIB) == {"m2/1": 2 * GIB}
    assert bench.read() == {}
    assert bench.ledger.measured_bytes(Incarnation(1)) == 3 * GIB


def test_a_reading_from_before_it_was_ready_measures_nothing(bench: Bench) -> None:
    bench.start(1)
    bench.take(1, GIB)
    assert bench.read() == {}
    bench.take(1, 2 * GIB)
    bench.ready(1)
    assert bench.ledger.read(bench.nvml.look().readings, bench.now_s - 0.5) == []
    assert bench.read() == {"m1/1": 2 * GIB}


def test_growth_is_seen_where_pids_are_ours() -> None:
    bench = Bench()
    bench.load(1, GIB)
    bench.take(1, 2 * GIB)
    assert bench.read() == {"m1/1": 2 * GIB}
    bench.take(1, GIB)
    assert bench.read() == {}


def test_in_a_container_growth_is_anybodys() -> None:
    bench = Bench(contained=True)
    bench.load(1, GIB)
    bench.take(1, 2 * GIB)
    assert bench.read() == {}


def test_in_a_container_two_loads_at_once_cannot_be_told_apart() -> None:
    bench = Bench(contained=True)
    bench.start(1, known=True)
    bench.start(2, known=True)
    for number in (1, 2):
        bench.take(number, GIB)
        bench.ready(number, peak_bytes=GIB // 2)
    assert bench.read() == {}
    assert bench.load(3, GIB) == {"m3/1": GIB}


def test_where_pids_are_ours_they_can() -> None:
    bench = Bench()
    bench.start(1)
    bench.start(2)
    for number in (1, 2):
        bench.take(number, number * GIB)
        bench.ready(number)
    assert bench.read() == {"m1/1": GIB, "m2/1": 2 * GIB}


def test_memory_that_nvml_does_not_attribute_is_measured_by_difference() -> None:
    bench = Bench()
    bench.start(1)
    bench.take(1, None)
    bench.gpu.held_bytes["m1"] = 3 * GIB
    bench.ready(1, peak_bytes=GIB)
    assert bench.read() == {"m1/1": 3 * GIB}


def test_what_is_unknown_is_loaded_alone(bench: Bench) -> None:
    assert bench.busy() == ""
    bench.start(1)
    assert bench.busy() == "m1/1 is being loaded on gpu:0"
    assert bench.busy(known=True) != ""
    assert bench.busy(urgent=True) == ""
    bench.take(1, GIB)
    bench.ready(1)
    assert bench.busy() != ""  # until it was measured
    bench.read()
    assert bench.busy() == ""
    bench.start(2, known=True)
    assert (bench.busy(), bench.busy(known=True)) == ("m2/1 is being loaded on gpu:0", "")


def test_a_reading_that_does_not_come_is_not_waited_for(bench: Bench) -> None:
    bench.start(1)
    bench.ready(1)
    bench.now_s += READ_WITHIN_S
    assert bench.busy() == ""


def test_loads_wait_until_the_memory_of_the_dead_is_free(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.die(1)
    waits = "the memory of a dead worker of m1/1@gpu:0#0 is not confirmed free yet"
    assert bench.busy(known=True, urgent=True) == waits
    bench.read()  # the driver has not let go of it
    assert bench.busy(urgent=True) == waits
    assert bench.ledger.unconfirmed() == {"gpu:0": 1}
    bench.give_back(1)
    assert bench.busy() == waits  # nobody has looked
    bench.read()
    assert bench.busy() == ""
    assert bench.ledger.unconfirmed() == {}


def test_a_reading_begun_before_the_death_confirms_nothing(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.give_back(1)
    begun_s = bench.now_s
    bench.now_s += 1.0
    bench.die(1)
    bench.ledger.read(bench.nvml.look().readings, begun_s)
    assert bench.busy() != ""
    bench.read()
    assert bench.busy() == ""


def test_one_that_dies_while_it_loads_leaves_the_device_as_it_was(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.start(2)
    bench.take(2, 2 * GIB)
    bench.read()
    bench.die(2)
    bench.read()
    assert bench.busy() != ""
    bench.give_back(2)
    bench.read()
    assert bench.busy() == ""


def test_one_that_never_touched_the_device_is_free_at_once(bench: Bench) -> None:
    bench.start(1)
    bench.die(1)
    bench.read()
    assert bench.busy() == ""


def test_memory_that_never_comes_back_is_not_waited_for_without_end(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.die(1)
    bench.read()
    bench.now_s += CONFIRM_S
    assert bench.busy() == ""
    bench.read()
    assert bench.ledger.unconfirmed() == {}


def test_a_device_that_was_lost_and_is_back_must_have_given_the_memory_back(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.gpu.error = pynvml.NVML_ERROR_GPU_IS_LOST
    bench.die(1)
    bench.read()
    bench.gpu.error = 0
    bench.read()
    assert bench.busy() != ""
    bench.give_back(1)
    bench.read()
    assert bench.busy() == ""


def test_what_others_hold(bench: Bench) -> None:
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER
    bench.gpu.processes[99] = GIB
    bench.read()
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER + GIB
    bench.load(1, 3 * GIB)
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER + GIB
    bench.gpu.processes[99] = 2 * GIB
    bench.read()
    # With the host's pids nobody can say who has grown.
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER + GIB * (1 if bench.contained else 2)
    bench.die(1)
    bench.give_back(1)
    bench.read()
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER + 2 * GIB
    assert bench.ledger.used_bytes("gpu:0") == DRIVER + 2 * GIB


def test_devices_without_figures_are_not_accounted() -> None:
    ledger = Ledger()
    cpu = Device("cpu", "-1")
    ledger.started(Incarnation(1), SlotId(ServableId("m", 1), "cpu"), cpu, known=False)
    ledger.exited(Incarnation(1), 0.0)
    assert ledger.busy(cpu, 0.0, known=False, urgent=False) == ""


# -- where NVML says less than it might --------------------------------------------------------------------------------


def test_processes_without_figures_are_measured_by_difference_and_are_not_foreign() -> None:
    bench = Bench()
    bench.start(1)
    bench.take(1, 0)  # the pid was translated for the container, what it holds was not
    bench.gpu.held_bytes["m1"] = 3 * GIB
    bench.ready(1)
    assert bench.read() == {"m1/1": 3 * GIB}
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER


def test_what_others_held_and_gave_back_is_not_held_against_us(bench: Bench) -> None:
    bench.gpu.held_bytes["an old pool"] = 9 * GIB
    bench.read()
    bench.load(1, 2 * GIB)
    del bench.gpu.held_bytes["an old pool"]
    bench.read()
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER


def test_what_a_dead_worker_may_still_hold_does_not_count_as_others(bench: Bench) -> None:
    bench.gpu.held_bytes["an old pool"] = 9 * GIB
    bench.load(1, 2 * GIB)
    bench.load(2, 2 * GIB)
    del bench.gpu.held_bytes["an old pool"]
    bench.die(2)
    bench.read()
    assert bench.ledger.foreign_bytes("gpu:0") <= DRIVER + 2 * GIB


def test_without_a_list_of_processes_nothing_is_confirmed_but_by_the_total(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.die(1)
    bench.library.processes_error = pynvml.NVML_ERROR_UNKNOWN
    bench.read()
    assert bench.busy() != ""
    bench.give_back(1)
    bench.read()
    assert bench.busy() == ""


def test_a_reading_without_a_list_forgets_nothing() -> None:
    bench = Bench()
    bench.load(1, 3 * GIB)
    bench.library.processes_error = pynvml.NVML_ERROR_UNKNOWN
    assert bench.read() == {}
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER
    bench.die(1)
    bench.library.processes_error = 0
    bench.read()
    assert bench.busy() != ""


def test_a_pid_that_goes_before_its_memory_confirms_nothing(bench: Bench) -> None:
    bench.load(1, 3 * GIB)
    bench.gpu.processes[99] = GIB
    bench.read()
    bench.die(1)
    bench.give_back(1)
    bench.gpu.held_bytes["nobody's"] = 3 * GIB
    bench.read()
    assert bench.busy() != ""
    del bench.gpu.held_bytes["nobody's"]
    bench.read()
    assert bench.busy() == ""


def test_what_named_others_take_meanwhile_delays_nothing() -> None:
    bench = Bench()
    bench.load(1, 3 * GIB)
    bench.die(1)
    bench.give_back(1)
    bench.gpu.processes[99] = 5 * GIB
    bench.read()
    assert bench.busy() == ""


def test_a_pid_of_the_host_that_is_the_same_number_is_anothers() -> None:
    bench = Bench(contained=True)
    bench.gpu.processes[1] = 5 * GIB  # somebody's on the host
    bench.read()
    assert bench.load(1, 2 * GIB) == {"m1/1": 2 * GIB}
    bench.die(1)
    bench.give_back(1)
    bench.read()
    assert bench.busy() == ""
    assert bench.ledger.foreign_bytes("gpu:0") == DRIVER + 5 * GIB


@pytest.mark.parametrize("others_answer", [False, True])
def test_while_nothing_is_read_the_dead_count_as_gone_after_their_time(bench: Bench, others_answer: bool) -> None:
    bench.load(1, 3 * GIB)
    bench.die(1)
    assert bench.ledger.used_bytes("gpu:0") == DRIVER + 3 * GIB
    bench.now_s += CONFIRM_S
    if others_answer:
        bench.gpu.error = pynvml.NVML_ERROR_UNKNOWN
        bench.read()
    assert bench.busy() == ""
    assert bench.ledger.used_bytes("gpu:0") == DRIVER
    bench.gpu.error = 0
    bench.read()  # it is not so
    assert bench.ledger.used_bytes("gpu:0") == DRIVER + 3 * GIB
