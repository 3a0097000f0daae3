"""Real processes that leave a CPU for a moment, with all their threads, and have it back after it."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator

import pytest

from modelpool.supervisor import elbow_room
from modelpool.supervisor.elbow_room import ElbowRoom

# Starts a thread for each line, by a thread that is told to, and says when it runs.
WORK = """
import sys, threading
def work():
    print("ready", flush=True)
    threading.Event().wait()
for line in sys.stdin:
    threading.Thread(target=work, daemon=True).start()
"""


class Process:
    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", WORK], stdin=pipe, stdout=pipe, text=True)
        self.pid = self.process.pid
        self.start_thread()

    def start_thread(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("one\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    def threads(self) -> list[int]:
        return sorted(map(int, os.listdir(f"/proc/{self.pid}/task")))

    def cpus(self) -> list[set[int]]:
        """Of each thread."""
        return [os.sched_getaffinity(thread) for thread in self.threads()]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.end()


@pytest.fixture
def own(process: Process) -> set[int]:
    cpus = os.sched_getaffinity(process.pid)
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    return cpus


@pytest.fixture
def room() -> ElbowRoom:
    return ElbowRoom()


class Sleep:
    """In place of `asyncio.sleep`: `during` is done while CPUs are left, `between` when the event loop has its turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.during: Callable[[], object] = lambda: None
        self.between: Callable[[], object] = lambda: None
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, wait_s: float) -> None:
        (self.during if wait_s else self.between)()


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    return Sleep(monkeypatch)


def make(room: ElbowRoom, process: Process) -> None:
    asyncio.run(room.make([process.pid]))


def test_another_cpu_each_turn_and_all_are_had_back(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep
) -> None:
    left: list[int] = []

    def during() -> None:
        seen = process.cpus()
        assert seen == [seen[0]] * len(seen)
        left.extend(own - seen[0])
        process.start_thread()

    sleep.during = during
    for turn in range(len(own)):
        make(room, process)
        assert process.cpus() == [own] * (turn + 3), "also the thread that was started meanwhile"
    assert sorted(left) == sorted(own)


def cancel() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("when", ["while they leave it", "while they are off it", "while they return"])
def test_they_are_had_back_when_it_is_cancelled(
    process: Process, own: set[int], sleep: Sleep, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(elbow_room, "AT_ONCE", 1)
    if when == "while they leave it":
        sleep.between = cancel
    else:
        sleep.during = cancel if when == "while they are off it" else lambda: setattr(sleep, "between", cancel)
    with pytest.raises(asyncio.CancelledError):
        make(ElbowRoom(), process)
    assert process.cpus() == [own] * 2


def test_a_thread_that_is_started_while_they_return_has_them_too(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.sched_setaffinity

    def start_another(thread: int, cpus: Collection[int]) -> None:
        if cpus == own and len(process.threads()) == 2:
            process.start_thread()
        really(thread, cpus)

    monkeypatch.setattr(os, "sched_setaffinity", start_another)
    make(room, process)
    assert process.cpus() == [own] * 3


def test_a_thread_that_has_chosen_its_cpus_keeps_them(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep
) -> None:
    chosen = {min(own)}
    os.sched_setaffinity(process.threads()[1], chosen)
    seen: list[list[set[int]]] = []
    sleep.during = lambda: seen.append(process.cpus())
    for _ in own:
        make(room, process)
        asyncio.run(room.settle())
        assert process.cpus() == [own, chosen]
    assert [each[1] for each in seen] == [chosen] * len(own)
    assert own not in [each[0] for each in seen]


def test_what_is_found_late_is_given_back_and_after_a_while_it_is_somebody_elses_will(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep
) -> None:
    fewer = own - {max(own)}
    seen: list[int] = []
    sleep.during = lambda: seen.append(len(set(map(frozenset, process.cpus()))))
    make(room, process)
    for _ in own:
        os.sched_setaffinity(process.threads()[1], fewer)
        make(room, process)
        assert process.cpus() == [own] * 2
    assert set(seen) == {1}, "it leaves the same CPU as the others"
    asyncio.run(room.settle())
    for _ in range(elbow_room.LATER - 1):
        os.sched_setaffinity(process.threads()[1], fewer)
        asyncio.run(room.settle())
        assert process.cpus() == [own] * 2
    os.sched_setaffinity(process.threads()[1], fewer)
    for _ in range(2):
        asyncio.run(room.settle())
        assert process.cpus() == [own, fewer]


def test_what_somebody_else_has_set_for_the_process_stays(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep
) -> None:
    fewer = own - {max(own)}
    make(room, process)
    asyncio.run(room.settle())
    os.sched_setaffinity(process.pid, fewer)
    os.sched_setaffinity(process.threads()[1], fewest := set(sorted(fewer)[:-1]) or fewer)
    for _ in range(2):
        asyncio.run(room.settle())
        assert process.cpus() == [fewer, fewest]
    make(room, process)
    assert process.cpus() == [fewer, fewest]


def test_one_thread_that_cannot_be_set_is_passed_over(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, failing = os.sched_setaffinity, 0

    def fails_for_one(thread: int, cpus: Collection[int]) -> None:
        if thread == failing:
            raise OSError(errno.EINVAL, "Invalid argument")
        really(thread, cpus)

    monkeypatch.setattr(os, "sched_setaffinity", fails_for_one)
    seen: list[int] = []
    sleep.during = lambda: seen.extend(sorted(map(len, process.cpus())))
    for thread in process.threads():
        failing = thread
        make(room, process)
        assert seen[-2:] == [len(own) - 1, len(own)]
        assert process.cpus() == [own] * 2


@pytest.fixture
def threads_set(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cpus: seen.append(thread))
    return seen


def test_who_has_all_its_cpus_is_only_looked_at(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep, request: pytest.FixtureRequest
) -> None:
    make(room, process)
    threads_set = request.getfixturevalue("threads_set")
    for _ in range(2):
        asyncio.run(room.settle())
    assert threads_set == []


def test_one_that_has_a_single_cpu_is_not_touched(
    process: Process, room: ElbowRoom, sleep: Sleep, monkeypatch: pytest.MonkeyPatch, threads_set: list[int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {0})
    make(room, process)
    assert threads_set == []


def test_one_that_is_no_child_is_not_touched(room: ElbowRoom, sleep: Sleep, threads_set: list[int]) -> None:
    """The number of one that is reaped may be any other process's."""
    asyncio.run(room.make([os.getpid()]))
    assert threads_set == []


def test_one_that_is_reaped_meanwhile_is_forgotten(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep.during = process.end
    make(room, process)
    looked: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: looked.append(thread) or own)
    asyncio.run(room.settle())
    assert looked == []


def test_many_threads_neither_keep_the_event_loop_nor_leave_it_little_time(
    process: Process, own: set[int], room: ElbowRoom, sleep: Sleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elbow_room, "AT_ONCE", 1)
    monkeypatch.setattr(elbow_room, "FOR_EACH_TURN", 2)
    fewer: list[bool] = []
    turns: list[None] = []
    sleep.during = lambda: fewer.append(own not in process.cpus())
    sleep.between = lambda: turns.append(None)
    settled = 0
    for _ in range(4):
        make(room, process)
        turned = len(turns)
        asyncio.run(room.settle())
        settled += len(turns) - turned
    assert fewer == [True, False, True, False], "two threads, each set twice"
    assert settled == 2 * (2 + 1), "only where there was no turn before"
    assert len(turns) - settled == 2 * (2 * 2 + 2), "after each thread, and after those of a process were listed"
