"""Scenes with real processes, each run in a process of its own: `python -m tests.process.scenarios NAME`.

Apart from pytest's process, because `Processes` makes its process a subreaper and reaps every child in it. A scene
prints what it saw as one JSON line.
"""

import asyncio
import errno
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from modelpool.supervisor.exits import Exit
from modelpool.supervisor.process import Processes, ProcessEvents
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.worker_spec import WorkerSpec

FAKE = "tests.process.fake_fork_server"
TIMEOUT_S = 30.0
NOBODYS_FRONTEND = FrontendSpec(Incarnation(1), "ipc:///tmp/nobody-listens-here", 0, 0, "", 1.0, 1 << 20, "ERROR")


class Stage:
    """`Processes` with its events recorded, and a way to wait for them."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        self.exits: dict[int, Exit] = {}
        self.frontend_exits: dict[int, Exit] = {}
        self._changed = asyncio.Event()
        self.processes = Processes(ProcessEvents(self._spawned, self._exited, self._frontend_exited), "INFO", FAKE)
        self.processes.start_fork_server()

    def spawn(self, number: int, name: str, version: int = 0, path: str = "") -> None:
        self.processes.spawn_worker(
            WorkerSpec(
                Incarnation(number),
                name,
                version,
                path,
                "cpu",
                "-1",
                "",
                "",
                (),
                True,
                1,
                False,
                0.0,
                0.0,
                LoadPriority.NORMAL,
                0.5,
            )
        )

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _spawned(self, incarnation: Incarnation, pid: int) -> None:
        self.pids[incarnation] = pid
        self._changed.set()

    def _exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        self.exits[incarnation] = exit_
        self._changed.set()

    def _frontend_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        self.frontend_exits[incarnation] = exit_
        self._changed.set()


async def exits() -> dict[str, Any]:
    """Codes and signals are told apart, also of workers that die before their pid is known."""
    stage = Stage()
    stage.spawn(1, "exit", 7)
    stage.spawn(2, "signal", signal.SIGKILL)
    stage.spawn(3, "signal", signal.SIGSEGV)
    await stage.until(lambda: len(stage.exits) == 3)
    await stage.processes.close()
    return {number: [e.code, e.signal, e.cause] for number, e in stage.exits.items()}


async def flights() -> dict[str, Any]:
    """What a killed worker was executing comes with its exit."""
    stage = Stage()
    stage.spawn(1, "flight")
    await stage.until(lambda: stage.exits)
    await stage.processes.close()
    recording = stage.exits[1].recording
    return {
        "executing": [(flight.frontend, flight.request_id) for flight in recording.executing],
        "finished": [(flight.frontend, flight.request_id) for flight in recording.finished],
    }


async def remains() -> dict[str, Any]:
    """What a crashed worker leaves: the stack of its crash, the end of its standard error, how much memory it had."""
    stage = Stage()
    stage.spawn(1, "crash")
    await stage.until(lambda: stage.exits)
    await stage.processes.close()
    left = stage.exits[1].remains
    return {
        "cause": stage.exits[1].cause,
        "fault": left.stack.splitlines()[:1],
        "where": [line for line in left.stack.splitlines() if "string_at" in line][:1] != [],
        "stderr": left.stderr,
        "memory": left.peak_rss_bytes is not None and left.peak_rss_bytes > 1 << 20,
    }


async def hang() -> dict[str, Any]:
    """A worker that hangs in a call that keeps the GIL, and one that stands still: both leave their stacks."""
    stage = Stage()
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "here"
        stage.spawn(1, "deaf")
        stage.spawn(2, "idle", path=str(mark))
        await stage.until(lambda: len(stage.pids) == 2)
        async with asyncio.timeout(TIMEOUT_S):
            while not (  # noqa: ASYNC110 - nothing announces it
                mark.exists() and "about to hang" in stage.processes.stderr_of(Incarnation(1))
            ):
                await asyncio.sleep(0.01)
    os.kill(stage.pids[2], signal.SIGSTOP)
    for number in (1, 2):
        stage.processes.kill_worker(Incarnation(number), hung=True)
    await stage.until(lambda: len(stage.exits) == 2)
    await stage.processes.close()
    stacks = [stage.exits[number].remains.stack for number in (1, 2)]
    return {
        "causes": [stage.exits[number].cause for number in (1, 2)],
        "stacks": ["fake_fork_server.py" in stack and "in run" in stack for stack in stacks],
    }


async def chatter() -> dict[str, Any]:
    """A worker that writes without end to its standard error takes the loop's time from nobody."""
    stage = Stage()
    stage.spawn(1, "chatter", version=2)
    await stage.until(lambda: 1 in stage.pids)
    cpu_s, began_s, waits = time.process_time(), time.monotonic(), []
    while 1 not in stage.exits:
        now_s = time.monotonic()
        await asyncio.sleep(0.01)
        waits.append(time.monotonic() - now_s)
    busy = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    await stage.processes.close()
    return {
        "last": stage.exits[1].remains.stderr.splitlines()[-1],
        "kept": len(stage.exits[1].remains.stderr),
        "busy": busy,
        "median_wait_s": sorted(waits)[len(waits) // 2],
    }


async def parenthood() -> dict[str, Any]:
    """A worker is the supervisor's own child, whatever becomes of the fork server."""
    stage = Stage()
    stage.spawn(1, "idle")
    stage.spawn(2, "idle")
    await stage.until(lambda: len(stage.pids) == 2)
    parents = [psutil.Process(pid).ppid() == os.getpid() for pid in stage.pids.values()]
    fork_server_pid = stage.processes.fork_server_pid
    assert fork_server_pid is not None
    os.kill(fork_server_pid, signal.SIGKILL)
    # The next worker needs the next fork server. One that is asked for before the death is seen fails and is asked
    # for again, as the manager does.
    for number in range(3, 100):
        stage.spawn(number, "idle")
        await stage.until(lambda number=number: number in stage.pids or number in stage.exits)
        if number in stage.pids:
            break
    spawned = number in stage.pids and psutil.Process(stage.pids[number]).ppid() == os.getpid()
    replaced = stage.processes.fork_server_pid
    alive = [psutil.pid_exists(stage.pids[number]) for number in (1, 2)]
    os.kill(stage.pids[1], signal.SIGKILL)
    await stage.until(lambda: 1 in stage.exits)
    await stage.processes.close()
    return {
        "parents": parents,
        "alive": alive,
        "noticed": stage.exits[1].cause,
        "replaced": replaced is not None and replaced != fork_server_pid,
        "spawned_by_the_new_one": spawned,
    }


def _oom_score(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def short_memory() -> dict[str, Any]:
    """Whom the kernel would end first: by how much more than this process each of the others."""
    stage = Stage()
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "here"
        stage.spawn(1, "idle", path=str(mark))
        await stage.until(lambda: 1 in stage.pids)
        async with asyncio.timeout(TIMEOUT_S):
            while not mark.exists():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
    frontend = stage.processes.spawn_frontend(NOBODYS_FRONTEND)
    pids = {"worker": stage.pids[1], "fork_server": stage.processes.fork_server_pid, "frontend": frontend}
    above = {name: _oom_score(pid) - _oom_score(os.getpid()) for name, pid in pids.items()}
    await stage.processes.close()
    return above


async def burst() -> dict[str, Any]:
    """Many workers that die in the same instant are all noticed, and no zombie stays."""
    stage = Stage()
    for number in range(1, 21):
        stage.spawn(number, "idle")
    await stage.until(lambda: len(stage.pids) == 20)
    for pid in stage.pids.values():
        os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: len(stage.exits) == 20)
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    await stage.processes.close()
    return {"causes": sorted({e.cause for e in stage.exits.values()}), "zombies": len(zombies)}


async def orphans() -> dict[str, Any]:
    """A process that a worker left behind is reaped and not mistaken for anybody."""
    stage = Stage()
    for number in range(1, 6):
        stage.spawn(number, "orphan")
    await stage.until(lambda: len(stage.exits) == 5)
    # Nothing announces the end of an orphan: look until only the fork server is left.
    async with asyncio.timeout(TIMEOUT_S):
        while len(psutil.Process().children()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await stage.processes.close()
    return {"codes": [e.code for e in stage.exits.values()], "children": len(psutil.Process().children())}


async def stray() -> dict[str, Any]:
    """Only a child that nobody knows is killed as a stray; other processes are not ours to kill."""
    stage = Stage()
    stage.spawn(1, "idle")
    await stage.until(lambda: 1 in stage.pids)
    stray = os.fork()
    if stray == 0:
        signal.pause()
    stage.processes.worker_said_hello(Incarnation(1), stage.pids[1])
    stage.processes.worker_said_hello(Incarnation(98), os.getppid())
    stage.processes.worker_said_hello(Incarnation(99), stray)
    async with asyncio.timeout(TIMEOUT_S):
        while psutil.pid_exists(stray):  # noqa: ASYNC110 - nothing announces its end
            await asyncio.sleep(0.01)
    known = psutil.pid_exists(stage.pids[1])
    await stage.processes.close()
    return {"known_spared": known, "parent_spared": psutil.pid_exists(os.getppid()), "stray_killed": True}


async def doomed() -> dict[str, Any]:
    """A kill reaches a worker whose pid is not known yet, whether its request has left or not."""
    stage = Stage()
    for number in range(1, 6):
        stage.spawn(number, "idle")
        stage.processes.kill_worker(Incarnation(number))
    await stage.until(lambda: len(stage.exits) == 5)
    left = [child.pid for child in psutil.Process().children() if child.pid != stage.processes.fork_server_pid]
    await stage.processes.close()
    return {"left": left}


async def full() -> dict[str, Any]:
    """A frontend is started with the last descriptors that there are: nothing more is needed once it runs."""
    stage = Stage()
    with mock.patch.object(os, "dup", side_effect=OSError(errno.EMFILE, "no more")):
        pid = stage.processes.spawn_frontend(NOBODYS_FRONTEND)
    os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: stage.frontend_exits)
    await stage.processes.close()
    return {"causes": [exit_.cause for exit_ in stage.frontend_exits.values()]}


async def closing() -> dict[str, Any]:
    """The end comes while answers of the fork server are unread: nobody is forgotten."""
    stage = Stage()
    stage.spawn(1, "idle")
    await stage.until(lambda: 1 in stage.pids)
    for number in range(2, 6):
        stage.spawn(number, "idle")
    # Hold the loop until the workers are there, so that `close` meets their answers unread.
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(psutil.Process().children()) < 6 and time.monotonic() < deadline_s:
        time.sleep(0.01)  # noqa: ASYNC251 - holding the loop is the point
    async with asyncio.timeout(TIMEOUT_S):
        await stage.processes.close()
    return {"children": len(psutil.Process().children())}


async def abandoned() -> dict[str, Any]:
    """Say the pids of a fork server, a worker, a stopped worker and a frontend, then wait to be killed."""
    stage = Stage()
    with tempfile.TemporaryDirectory() as folder:
        marks = [Path(folder) / str(number) for number in (1, 2)]
        for number, mark in enumerate(marks, 1):
            stage.spawn(number, "idle", path=str(mark))
        await stage.until(lambda: len(stage.pids) == 2)
        async with asyncio.timeout(TIMEOUT_S):
            while not all(mark.exists() for mark in marks):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
    frontend = stage.processes.spawn_frontend(NOBODYS_FRONTEND)
    os.kill(stage.pids[2], signal.SIGSTOP)
    print(json.dumps([stage.processes.fork_server_pid, frontend, *stage.pids.values()]), flush=True)
    await asyncio.Event().wait()
    return {}


_SCENES = (
    *(exits, flights, remains, hang, chatter, parenthood, short_memory, burst, orphans, stray, doomed, full, closing),
    abandoned,
)
SCENES: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {scene.__name__: scene for scene in _SCENES}


async def main() -> None:
    print(json.dumps(await SCENES[sys.argv[1]]()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
