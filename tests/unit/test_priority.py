"""The priority of a process that loads, in processes of their own: the kernel's answers, and no sleep."""

import os
import threading
from collections.abc import Callable, Sequence

import pytest

from modelpool.supervisor.specs import load_priority
from modelpool.supervisor.wire import thread_priority
from modelpool.supervisor.wire.states import LoadPriority
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
            text = "no way back" if thread_priority.why_no_way_back() else look()
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
    with priority.lowered(LoadPriority.IDLE, {LoadPriority.IDLE: steps}):
        at_once, waiting = now(), threading.Event()
        looks = WAIT_S / 0.01
        while now() != until and looks:
            waiting.wait(0.01)
            looks -= 1
        last = now()
    return f"{at_once} {last} {now()}"


NEVER = 3600.0
IDLE, OTHER = os.SCHED_IDLE, os.SCHED_OTHER


def test_a_load_is_idle_and_normal_again_when_it_is_done() -> None:
    steps = (Step(0.0, IDLE, 0), Step(NEVER, OTHER, 0))
    assert seen_by(lambda: during_and_after(steps, "idle+0")) == "idle+0 idle+0 normal+0"


def test_a_load_may_be_behind_the_others_without_being_idle() -> None:
    assert seen_by(lambda: during_and_after((Step(0.0, OTHER, 5),), "normal+5")) == "normal+5 normal+5 normal+0"


def test_a_load_that_takes_long_is_raised() -> None:
    steps = (Step(0.0, IDLE, 0), Step(0.05, OTHER, 10), Step(NEVER, OTHER, 0))
    assert seen_by(lambda: during_and_after(steps, "normal+10")).endswith(" normal+10 normal+0")


def test_and_at_last_it_is_as_any_other() -> None:
    steps = (Step(0.0, IDLE, 0), Step(0.02, OTHER, 10), Step(0.1, OTHER, 0))
    assert seen_by(lambda: during_and_after(steps, "normal+0")).endswith(" normal+0 normal+0")


def test_nothing_is_changed_where_it_is_not_wanted() -> None:
    def look() -> str:
        with priority.lowered(LoadPriority.NORMAL):
            return now()

    assert seen_by(look) == "normal+0"


@pytest.mark.parametrize("wanted", [LoadPriority.BEHIND, LoadPriority.IDLE])
def test_no_load_starves_for_longer_than_a_minute(wanted: LoadPriority) -> None:
    steps = priority.STEPS[wanted]
    assert list(steps) == sorted(steps, key=lambda step: step.after_s)
    assert steps[0].after_s == 0.0
    assert steps[-1].after_s <= 60.0
    assert (steps[-1].policy, steps[-1].nice) == (OTHER, 0)


@pytest.mark.parametrize(
    ("urgent", "open_ports", "others_serve", "wanted"),
    [
        (False, False, False, LoadPriority.NORMAL),  # the start
        (False, True, True, LoadPriority.IDLE),  # a new version
        (False, True, False, LoadPriority.IDLE),
        (True, True, True, LoadPriority.BEHIND),  # after a death
        (True, True, False, LoadPriority.NORMAL),
        (True, False, True, LoadPriority.NORMAL),
    ],
)
def test_who_waits_and_who_would_be_slowed_decides(
    urgent: bool, open_ports: bool, others_serve: bool, wanted: LoadPriority
) -> None:
    assert load_priority(urgent=urgent, open_ports=open_ports, others_serve=others_serve) is wanted
