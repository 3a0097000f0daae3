"""The policy of real threads follows what they did: theirs, their children's, and what others have chosen stays."""

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelpool.supervisor.wire import cpu_count, gathering, thread_priority
from modelpool.supervisor.wire.gathering import (
    FRONTEND,
    PERIOD_S,
    RARELY,
    WORKER,
    Gatherer,
    Rules,
    Turns,
)

TURNS = 1000
RAN_NS = 200_000
CALM = 0.5
"""Of what threads ran they waited so much, where all is well."""
TOO_LONG = FRONTEND.patience + 0.1


@dataclass
class Threads:
    """Real threads, and what the kernel is made to say of them."""

    tasks: Path
    ends: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    turns: dict[int, Turns] = field(default_factory=dict)

    def start(self, policy: int = os.SCHED_OTHER) -> int:
        started = threading.Event()

        def run() -> None:
            number = threading.get_native_id()
            os.sched_setscheduler(0, policy, os.sched_param(0))
            self.numbers.append(number)
            started.set()
            self.ends.wait(60)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        assert started.wait(10)
        self.work(0)
        return self.numbers[-1]

    def work(self, count: int, waits: float = CALM, numbers: Sequence[int] = ()) -> None:
        """Each of them, or these."""
        for number in numbers or self.numbers:
            had = self.turns.get(number, Turns(7, 7, 7))
            new = Turns(count, count * RAN_NS, round(count * RAN_NS * waits))
            self.turns[number] = Turns(*(a + b for a, b in zip(had, new, strict=True)))
            (self.tasks / str(number)).mkdir(exist_ok=True)
            turns = self.turns[number]
            (self.tasks / f"{number}/schedstat").write_text(f"{turns.ran_ns} {turns.waited_ns} {turns.times}\n")

    def policies(self) -> list[int]:
        return [os.sched_getscheduler(number) for number in self.numbers]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, and how much of the CPUs the process used. It has no quota, whatever the tests run in."""
    clock = [100.0, 10.0]
    monkeypatch.setattr(cpu_count, "quota", lambda cgroup: None)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "process_time", lambda: clock[1])
    return clock


class Process:
    """Looked at each period, in which it used half of a CPU."""

    def __init__(self, threads: Threads, clock: list[float], rules: Rules = FRONTEND) -> None:
        self.threads, self.clock = threads, clock
        self.calls = 0
        self.gatherer = Gatherer(rules, lambda: set(threads.numbers), threads.tasks)
        self.gatherer.look()

    def see(self, count: int = TURNS, waits: float = CALM, calls: int = 0, cpus: float = 0.5) -> list[int]:
        """The policies after a period in which each thread had so many turns."""
        self.threads.work(count, waits)
        self.calls += calls
        self.clock[0] += PERIOD_S
        self.clock[1] += PERIOD_S * cpus
        self.gatherer.look(self.calls)
        return self.threads.policies()


OTHER, BATCH, IDLE = os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[Threads]:
    threads = Threads(tmp_path)
    threads.start()
    yield threads
    threads.ends.set()
    for thread in threads.threads:
        thread.join(10)


def test_the_policy_follows(threads: Threads, clock: list[float]) -> None:
    threads.start()
    process = Process(threads, clock)
    assert process.see() == [BATCH, BATCH]
    assert process.see(waits=TOO_LONG) == [OTHER, OTHER]
    assert os.sched_getscheduler(0) == OTHER


def test_what_was_before_the_first_look_says_nothing(threads: Threads, clock: list[float]) -> None:
    threads.work(TURNS)
    process = Process(threads, clock)
    assert threads.policies() == [OTHER]
    assert process.see(count=RARELY - 1) == [OTHER]


@pytest.mark.parametrize(
    ("waits", "policy"), [(2 * FRONTEND.patience - 0.1, BATCH), (2 * FRONTEND.patience + 0.1, OTHER)]
)
def test_what_several_threads_waited_counts_together(
    threads: Threads, clock: list[float], waits: float, policy: int
) -> None:
    threads.start()
    process = Process(threads, clock)
    process.see()
    threads.work(TURNS, waits, threads.numbers[:1])
    threads.work(TURNS, 0.0, threads.numbers[1:])
    assert process.see(count=0) == [policy, policy]


def test_calls_are_those_since_the_last_look(threads: Threads, clock: list[float]) -> None:
    process = Process(threads, clock, WORKER)
    process.see(calls=50_000)
    assert process.see(calls=TURNS) == [OTHER], "those that were before the first turns are not of these"
    assert process.see(calls=2 * TURNS) == [BATCH]


def test_one_that_does_next_to_nothing_is_not_looked_at(threads: Threads, clock: list[float]) -> None:
    process = Process(threads, clock)
    assert process.see(cpus=0.9 * gathering.ACTIVE_CPUS) == [OTHER]
    assert process.see(count=RARELY - 1) == [BATCH], "it has all turns since the last look that counted"


@pytest.mark.parametrize(("count", "cpus"), [(RARELY - 1, 0.5), (TURNS, 0.9 * gathering.ACTIVE_CPUS)])
def test_one_that_comes_to_rest_gathers_no_more(threads: Threads, clock: list[float], count: int, cpus: float) -> None:
    """What waits beside others that compute, then, nobody sees."""
    process = Process(threads, clock)
    process.see()
    assert process.see(count=count, cpus=cpus) == [OTHER]
    assert process.see() == [BATCH], "that is no reason to wait"


def test_new_threads_gather_too_also_those_that_have_it_from_their_parent(threads: Threads, clock: list[float]) -> None:
    process = Process(threads, clock)
    process.see()
    threads.start()
    threads.start(BATCH)
    assert process.see() == [BATCH, BATCH, BATCH]
    assert process.see(waits=TOO_LONG) == [OTHER, OTHER, OTHER]


def test_one_that_was_started_just_before_the_end_has_it_no_more(threads: Threads, clock: list[float]) -> None:
    process = Process(threads, clock)
    process.see()
    threads.start(BATCH)
    assert process.see(waits=TOO_LONG) == [OTHER, OTHER]


def test_a_policy_that_somebody_else_has_chosen_stays(threads: Threads, clock: list[float]) -> None:
    threads.start(BATCH)
    process = Process(threads, clock)
    assert process.see() == [BATCH, BATCH]
    assert process.see(waits=TOO_LONG) == [OTHER, BATCH]


def test_while_one_gives_way_none_gathers(threads: Threads, clock: list[float]) -> None:
    threads.start()
    process = Process(threads, clock)
    process.see()
    os.sched_setscheduler(threads.numbers[0], IDLE, os.sched_param(0))
    assert process.see() == [IDLE, OTHER]
    if thread_priority.why_no_way_back():
        pytest.skip("needs the privilege to come back from idle priority")
    os.sched_setscheduler(threads.numbers[0], OTHER, os.sched_param(0))
    assert process.see() == [BATCH, BATCH]


def test_nor_does_another_thread_of_one_that_gave_way_before(threads: Threads, clock: list[float]) -> None:
    threads.start(IDLE)
    process = Process(threads, clock)
    for _ in range(3):
        assert process.see() == [OTHER, IDLE]


@pytest.mark.parametrize("said", ["", "0 0\n", "1 2 three\n", None])
def test_where_the_kernel_does_not_count_nothing_is_done(
    threads: Threads, clock: list[float], said: str | None
) -> None:
    process = Process(threads, clock)
    path = threads.tasks / f"{threads.numbers[0]}/schedstat"
    for _ in range(3):
        path.unlink(missing_ok=True) if said is None else path.write_text(said)
        clock[0] += PERIOD_S
        clock[1] += PERIOD_S
        process.gatherer.look()
        assert threads.policies() == [OTHER]


def test_one_that_has_ended_costs_the_others_nothing(threads: Threads, clock: list[float]) -> None:
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join(10)
    process = Process(threads, clock)
    process.see()
    policies: list[list[int]] = []
    for waits in (CALM, TOO_LONG):
        threads.numbers.append(gone.native_id or 0)
        threads.work(TURNS, waits)
        clock[0] += PERIOD_S
        clock[1] += PERIOD_S
        process.gatherer.look()
        threads.numbers.pop()
        policies.append(threads.policies())
    assert policies == [[BATCH], [OTHER]]


def test_a_kernel_that_refuses_is_asked_once(
    threads: Threads, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(threads, clock)
    asked: list[int] = []

    def refuse(thread: int, policy: int, param: object) -> None:
        asked.append(thread)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    for _ in range(3):
        assert process.see() == [OTHER]
    assert len(asked) == 1


def test_where_threads_cannot_be_seen_any_more_none_gathers(
    threads: Threads, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(threads, clock)
    assert process.see() == [BATCH]

    def fail() -> set[int]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(process.gatherer, "_threads", fail)
    assert process.see() == [OTHER]


def test_where_no_descriptor_is_left_it_goes_on_later(
    threads: Threads, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(threads, clock)

    def fail() -> set[int]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(process.gatherer, "_threads", fail)
        assert process.see() == [OTHER]
    assert process.see() == [BATCH]


def test_within_a_quota_nothing_is_done(threads: Threads, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(threads, clock)
    assert process.see() == [BATCH]
    monkeypatch.setattr(cpu_count, "quota", lambda cgroup: len(os.sched_getaffinity(0)) - 1)
    assert process.see() == [OTHER], "one that comes later counts, too"
    assert process.see() == [OTHER]


@pytest.mark.parametrize(("policy", "stays"), [(BATCH, OTHER), (OTHER, OTHER), (IDLE, IDLE)])
def test_a_thread_that_stands_apart_does_not_gather(policy: int, stays: int) -> None:
    seen: list[int] = []

    def run() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        gathering.stand_apart()
        seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [stays]


def test_the_threads_of_this_process() -> None:
    assert {threading.get_native_id(), os.getpid()} <= gathering.all_threads()
