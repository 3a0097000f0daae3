"""The rests of a load that competes for the CPUs: in proportion, bounded, and of no cost where only loads compete."""

import heapq
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.worker import pace
from modelpool.worker.pace import LATELY, LEAST_S, PER_RUN, Pace, Rests, ThisThread, Use

PIECE_S = 0.00025
NOBODY_S = 0.0


class Load:
    """One thread's account, and its rests after pieces that took a CPU for PIECE_S each."""

    def __init__(self) -> None:
        self.rests = Rests()
        self.use = Use(0.0, 0.0)
        assert self.rests.due_s(self.use) == 0.0

    def piece(self, waited_s: float) -> float:
        self.use = Use(self.use.ran_s + PIECE_S, self.use.waited_s + waited_s)
        return self.rests.due_s(self.use)


def test_a_load_that_nobody_keeps_waiting_never_rests() -> None:
    load = Load()
    assert {load.piece(NOBODY_S) for _ in range(100)} == {0.0}


def test_one_that_is_kept_waiting_rests_for_as_long() -> None:
    load = Load()
    rests = [load.piece(2 * PIECE_S) for _ in range(10 * LATELY)]
    assert rests == sorted(rests)
    assert rests[0] < rests[-1] / 2
    assert rests[-1] == pytest.approx(2 * PIECE_S, rel=0.01)


def test_a_wait_that_is_hardly_one_brings_no_rest() -> None:
    load = Load()
    assert {load.piece(LEAST_S / 2) for _ in range(100)} == {0.0}


def test_the_rest_after_a_long_wait_is_spread_over_pieces_and_ends() -> None:
    load = Load()
    rests = [load.piece(1.0), *(load.piece(NOBODY_S) for _ in range(200))]
    assert [rests[0], max(rests)] == [pytest.approx(PER_RUN * PIECE_S)] * 2
    assert sum(rests) < 0.05
    assert rests[-1] == 0.0


@given(st.lists(st.floats(0.0, 1.0)))
def test_a_load_rests_no_longer_than_it_waits_and_than_so_many_times_as_it_runs(waits: list[float]) -> None:
    load = Load()
    rested_s = sum(load.piece(waited_s) for waited_s in waits)
    assert rested_s <= PER_RUN * len(waits) * PIECE_S * 1.000001
    assert rested_s <= sum(waits) * 1.000001


def test_the_waits_of_one_that_does_not_give_way_any_more_are_forgotten() -> None:
    load = Load()
    assert load.piece(1.0)
    assert load.rests.due_s(None) == 0.0
    assert load.rests.due_s(Use(5.0, 5.0)) == 0.0, "what it did meanwhile does not count"
    assert load.rests.due_s(Use(5.0 + PIECE_S, 5.0)) == 0.0


def loads_beside_each_other(cpus: int, loads: int, pieces: int, rest: Callable[[Load, float], float]) -> float:
    """When the last one is done. Whoever is ready first has the next CPU that is free, for one piece."""
    free_s = [0.0] * cpus
    ready = [(0.0, number, Load(), pieces) for number in range(loads)]
    while ready:
        ready_s, number, load, left = heapq.heappop(ready)
        begun_s = max(ready_s, heapq.heappop(free_s))
        heapq.heappush(free_s, begun_s + PIECE_S)
        rest_s = rest(load, begun_s - ready_s)
        if left > 1:
            heapq.heappush(ready, (begun_s + PIECE_S + rest_s, number, load, left - 1))
    return max(free_s)


@pytest.mark.parametrize("loads", [1, 2, 3, 4, 5, 8, 20])
def test_loads_that_compete_only_with_each_other_are_not_slower(loads: int) -> None:
    without_s = loads_beside_each_other(2, loads, 500, lambda load, waited_s: 0.0)
    assert loads_beside_each_other(2, loads, 500, Load.piece) <= 1.03 * without_s


class Told:
    """What the looks of each thread are answered, and its sleeps."""

    def __init__(self, uses: list[Use | None]) -> None:
        self._uses: dict[int, Iterator[Use | None]] = {}
        self._all = uses
        self.slept_s: list[float] = []

    def look(self) -> Use | None:
        return next(self._uses.setdefault(threading.get_ident(), iter(self._all)))


def test_each_thread_has_an_account_of_its_own() -> None:
    rest_s = 0.5 / LATELY
    told = Told([Use(0.0, 0.0), Use(1.0, 0.5), None])
    kept = Pace(told.look, told.slept_s.append)

    def read() -> None:
        for _ in range(3):
            kept.keep()

    read()
    assert told.slept_s == [rest_s]
    other = threading.Thread(target=read)
    other.start()
    other.join()
    assert told.slept_s == [rest_s] * 2


@pytest.mark.parametrize(("policy", "told"), [(os.SCHED_BATCH, False), (os.SCHED_IDLE, True)])
def test_only_a_thread_at_idle_priority_gives_way(policy: int, told: bool) -> None:
    if not Path(pace._SCHEDSTAT).exists():
        pytest.skip("this kernel does not tell of waits")
    seen: list[Use | None] = []

    def run() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        seen.append(ThisThread().look())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (use,) = seen
    assert (use is not None) == told
    assert use is None or (use.ran_s > 0.0 and use.waited_s >= 0.0)


class Clocks:
    """Of a thread at idle priority, and the kernel's file about it, which says what the thread has waited."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.now_s, self.ran_s = path, 100.0, 5.0
        monkeypatch.setattr(pace, "_SCHEDSTAT", str(path))
        monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_IDLE)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "thread_time", lambda: self.ran_s)

    def say(self, waited_ns: int) -> None:
        self.path.write_text(f"5000000000 {waited_ns} 17\n", "ascii")

    def go_on(self, ran_s: float, off_s: float) -> None:
        self.ran_s += ran_s
        self.now_s += ran_s + off_s


@pytest.fixture
def clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(tmp_path / "schedstat", monkeypatch)


def test_what_the_kernel_tells_of_waits(clocks: Clocks) -> None:
    clocks.say(250_000_000)
    looks = ThisThread()
    assert looks.look() == Use(5.0, 0.25)
    clocks.say(250_300_000)
    clocks.go_on(1.0, 0.0003)
    assert looks.look() == Use(6.0, 0.2503)


def test_one_that_was_never_off_its_cpu_is_not_asked_for_waits(clocks: Clocks) -> None:
    clocks.say(0)
    looks = ThisThread()
    looks.look()
    clocks.say(10**9)
    clocks.go_on(1.0, 0.6 * LEAST_S)
    assert looks.look() == Use(6.0, 0.0)
    clocks.go_on(1.0, 0.6 * LEAST_S)
    assert looks.look() == Use(7.0, 1.0), "moments add up"


def test_nobody_rests_where_the_kernel_does_not_tell_of_waits(clocks: Clocks) -> None:
    assert ThisThread().look() is None
