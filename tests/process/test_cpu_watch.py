"""Real processes on real CPUs: one that takes all it can gets nicer while another works, and comes back after it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelpool.supervisor import cpu_watch
from modelpool.supervisor.cpu_watch import NICER, CpuWatch, Tenant, Way
from modelpool.supervisor.wire import thread_priority
from tests.e2e.eventually import eventually

# With threads: all of them are meant. Told on its standard input how long to rest after each bit of work.
WORK = """
import sys, threading, time
rest_s = None
told = threading.Event()
def work():
    while True:
        told.wait()
        sum(range(10000))
        if rest_s:
            time.sleep(rest_s)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    rest_s = float(line)
    told.set() if rest_s < 1 else told.clear()
"""
NAMED = """
import sys, threading
from modelpool.supervisor.wire.thread_priority import name_this_thread
def control():
    name_this_thread("control")
    print(threading.get_native_id(), flush=True)
    sys.stdin.read()
threading.Thread(target=control).start()
"""
FLOOD, LIGHT, REST = "0", "0.005", "1"


class Process:
    def __init__(self, cpu: int) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", WORK], stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.pid = self._process.pid
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def ways(self) -> set[tuple[int, int]]:
        """Policy and niceness of its threads."""
        threads = [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]
        return {(os.sched_getscheduler(each), os.getpriority(os.PRIO_PROCESS, each)) for each in threads}

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def pair() -> Iterator[tuple[Process, Process]]:
    first = min(os.sched_getaffinity(0))
    both = Process(first), Process(first)
    yield both
    for each in both:
        each.end()


def test_a_flood_gives_way_while_its_neighbour_works(
    pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    if thread_priority.why_no_way_back():
        pytest.skip("needs the privilege to lower niceness")
    first = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {first})
    flood, light = pair
    watch = CpuWatch(lambda: {flood.pid: Tenant("flood", 100), light.pid: Tenant("light", 100)})
    normal = (os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))

    def seen(way: tuple[int, int]) -> bool:
        watch.look()
        return flood.ways() == {way}

    flood.tell(FLOOD)
    watch.look()
    watch.look()
    assert flood.ways() == {normal}, "nobody else has work"
    light.tell(LIGHT)
    eventually(lambda: seen((os.SCHED_IDLE, normal[1])), what="the flood gives way")
    light.tell(REST)
    eventually(lambda: seen(normal), what="it comes back")
    light.end()
    watch.look()
    assert cpu_watch.cpu_time_s(light.pid) is None


def test_priorities_of_all_threads(pair: tuple[Process, Process]) -> None:
    if thread_priority.why_no_way_back():
        pytest.skip("needs the privilege to lower niceness")
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    seen = {Way.IDLE: (os.SCHED_IDLE, nice), Way.NICE: (os.SCHED_OTHER, min(19, nice + NICER))}
    for way, expected in seen.items():
        assert cpu_watch.set_way_of(pair[0].pid, way, nice)
        assert pair[0].ways() == {expected}
    assert pair[1].ways() == {(os.SCHED_OTHER, nice)}


def test_a_thread_that_says_that_the_worker_lives_keeps_its_priority() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", NAMED], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        spared = int(process.stdout.readline())
        assert cpu_watch.set_way_of(process.pid, Way.IDLE, os.getpriority(os.PRIO_PROCESS, 0))
        assert os.sched_getscheduler(spared) == os.SCHED_OTHER
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        process.communicate("")
