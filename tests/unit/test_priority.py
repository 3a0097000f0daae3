"""The priority of a process that loads, in processes of their own: the kernel's answers, and no sleep."""

import os
import threading
from collections.abc import Callable, Sequence

import pytest

from modelpool.worker import priority
from modelpool.worker.priority import Step

WAIT_S = 20.0
NAMES = {os.SCHED_IDLE: "idle", os.SCHED_OTHER: "normal"}


def seen_by(look: Callable[[], str]) -> str:
    """What `look` says in a child process, which may come back from any priority, or skips the test."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        text = "it failed"
        try:
            text = look() if priority._can_come_back() else "no way back"
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    if said == "no way back":
        pytest.skip("this user may not raise a priority that it has lowered")
    return said


def now() -> str:
    """Policy of this thread, and how much nicer it is than `BEFORE`."""
    return f"{NAMES[os.sched_getscheduler(0)]}+{os.getpriority(os.PRIO_PROCESS, 0) - BEFORE}"


BEFORE = os.getpriority(os.PRIO_PROCESS, 0)


def during_and_after(steps: Sequence[Step], until: str) -> str:
    """What this thread is once it is `until` at the latest, and after the block."""
    with priority.idle(True, steps):
        waited, at_once = threading.Event(), now()
        ends = WAIT_S / 0.01
        while now() != until and ends:
            waited.wait(0.01)
            ends -= 1
        last = now()
    return f"{at_once} {last} {now()}"


def test_a_load_is_idle_and_normal_again_when_it_is_done() -> None:
    assert seen_by(lambda: during_and_after((Step(3600.0, 0),), "idle+0")) == "idle+0 idle+0 normal+0"


def test_a_load_that_takes_long_is_raised() -> None:
    steps = (Step(0.05, 10), Step(3600.0, 0))
    assert seen_by(lambda: during_and_after(steps, "normal+10")).endswith(" normal+10 normal+0")


def test_and_at_last_it_is_as_any_other() -> None:
    steps = (Step(0.02, 10), Step(0.1, 0))
    assert seen_by(lambda: during_and_after(steps, "normal+0")).endswith(" normal+0 normal+0")


def test_nothing_is_changed_where_it_is_not_wanted() -> None:
    def look() -> str:
        with priority.idle(False):
            return now()

    assert seen_by(look) == "normal+0"


def test_the_last_step_is_normal_and_comes_within_a_minute() -> None:
    assert priority.STEPS[-1] == Step(60.0, 0)
    assert list(priority.STEPS) == sorted(priority.STEPS, key=lambda step: step.after_s)
