"""Real processes that leave a CPU for a moment, with all their threads, and have it back after it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelpool.supervisor import elbow_room

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

    def cpus(self) -> list[set[int]]:
        """Of each thread."""
        return [os.sched_getaffinity(int(name)) for name in os.listdir(f"/proc/{self.pid}/task")]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.end()


def test_another_cpu_each_turn_and_all_are_had_back(process: Process) -> None:
    own = os.sched_getaffinity(process.pid)
    if len(own) < 2:
        pytest.skip("needs two CPUs")
    left = []
    for turn in range(len(own)):
        with elbow_room.made(lambda: [process.pid], turn):
            seen = process.cpus()
            process.start_thread()
        assert seen == [seen[0]] * len(seen)
        left += own - seen[0]
        assert process.cpus() == [own] * (turn + 3), "also the thread that was started meanwhile"
    assert sorted(left) == sorted(own)


def test_one_that_has_a_single_cpu_stays_there(process: Process) -> None:
    first = min(os.sched_getaffinity(process.pid))
    for name in os.listdir(f"/proc/{process.pid}/task"):
        os.sched_setaffinity(int(name), {first})
    with elbow_room.made(lambda: [process.pid], 0):
        assert process.cpus() == [{first}] * 2


def test_one_that_is_reaped_meanwhile_is_left_alone(process: Process) -> None:
    pids = [process.pid]
    with elbow_room.made(lambda: pids, 0):
        process.end()
        pids.clear()
