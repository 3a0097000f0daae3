"""Real processes, injected deaths, no TensorFlow: who notices what, and what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
# What the server's own folder holds is nobody's library: it has a `socket.py` here.
HOSTILE = ROOT / "tests" / "hostile_folder"
PARENT_DEATH_S = 20.0


def start(scene: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.process.scenarios", scene],
        cwd=HOSTILE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def play(scene: str) -> Any:
    with start(scene) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def test_how_a_worker_ended_is_told_in_words() -> None:
    assert play("exits") == {
        "1": [7, None, "exited with code 7"],
        "2": [None, signal.SIGKILL, "killed by SIGKILL"],
        "3": [None, signal.SIGSEGV, "killed by SIGSEGV"],
    }


def test_what_a_killed_worker_was_at_is_known() -> None:
    assert play("flights") == {"executing": [[5, 42]], "finished": [[5, 41]]}


def test_what_a_crashed_worker_leaves_is_kept() -> None:
    assert play("remains") == {
        "cause": "killed by SIGSEGV",
        "fault": ["Fatal Python error: Segmentation fault"],
        "where": True,
        "stderr": "about to crash\n",
        "memory": True,
    }


def test_a_hung_worker_is_asked_for_its_stacks_before_it_is_killed() -> None:
    assert play("hang") == {"causes": ["killed by SIGKILL"] * 2, "stacks": [True, True]}


def test_a_worker_that_writes_without_end_slows_only_itself() -> None:
    seen = play("chatter")
    assert seen["last"] == "the last line"
    assert 1000 < seen["kept"] <= 64 * 1024
    assert seen["busy"] < 0.5, "the loop has time left"
    assert seen["median_wait_s"] < 0.1


def test_the_fork_servers_death_touches_no_worker() -> None:
    assert play("parenthood") == {
        "parents": [True, True],
        "alive": [True, True],
        "noticed": "killed by SIGKILL",
        "replaced": True,
        "spawned_by_the_new_one": True,
    }


def test_a_worker_goes_before_all_others_when_memory_is_short() -> None:
    assert play("short_memory") == {"worker": 500, "fork_server": 0, "frontend": 0}


def test_deaths_in_the_same_instant_are_all_noticed() -> None:
    assert play("burst") == {"causes": ["killed by SIGKILL"], "zombies": 0}


def test_what_a_worker_leaves_behind_is_reaped() -> None:
    assert play("orphans") == {"codes": [0] * 5, "children": 0}


def test_only_our_own_strays_are_killed() -> None:
    assert play("stray") == {"known_spared": True, "parent_spared": True, "stray_killed": True}


def test_a_kill_reaches_a_worker_whose_pid_is_not_known_yet() -> None:
    assert play("doomed") == {"left": []}


def test_a_frontend_that_runs_needs_no_descriptor_more() -> None:
    assert play("full") == {"causes": ["killed by SIGKILL"]}


def test_an_end_amid_the_start_of_workers_forgets_nobody() -> None:
    assert play("closing") == {"children": 0}


def test_nobody_outlives_a_killed_supervisor_not_even_a_stopped_worker() -> None:
    with start("abandoned") as process:
        assert process.stdout is not None
        children = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        started_s = time.monotonic()
        _, left = psutil.wait_procs(children, timeout=PARENT_DEATH_S)
        assert left == [], f"still there after {time.monotonic() - started_s:.1f} s"
