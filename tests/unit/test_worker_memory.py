"""Who killed a worker: its own control group, the host's lack of memory, the supervisor, or somebody else.

The kernel is played by files: no process dies here.
"""

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor import cgroup, host_memory, memory_watch, worker_memory
from modelpool.supervisor.cgroup import MemoryGroups
from modelpool.supervisor.exits import Exit, ExitKind
from modelpool.supervisor.memory_limit import Sample
from modelpool.supervisor.memory_watch import MemoryWatch
from modelpool.supervisor.oom import OomWatch
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.worker_spec import WorkerSpec
from modelpool.supervisor.worker_memory import WorkerMemory

MIB = 1 << 20
PID = 4711
KILLED = Exit.from_wait_status(signal.SIGKILL)
SPEC = WorkerSpec(
    *(Incarnation(7), "m", 1, "/models/m/1", "cpu", "-1", "", "", (), True, 1, False, 0.0, 0.0),
    LoadPriority.NORMAL,
    0.5,
    host_memory_bytes=100 * MIB,
)


class Host:
    """Files in place of the kernel's: its log, its count of kills, and a group to divide."""

    def __init__(self, folder: Path, groups: bool) -> None:
        self.kills = 0
        self._log = folder / "kmsg"
        self._log.write_bytes(b"")
        self._group = folder / "modelpool-worker-p1-7"
        self._loop = asyncio.new_event_loop()
        found = MemoryGroups(folder, "p1") if groups else None
        oom = OomWatch(str(self._log), [lambda: self.kills])
        self.memory = WorkerMemory(self._loop, lambda *_: None, found, oom)
        self.memory.started(SPEC, PID)

    def killed_in_its_group(self, went_over: int = 1) -> None:
        text = f"low 0\nhigh 0\nmax {12 * went_over}\noom {went_over}\noom_kill 1\n"
        (self._group / "memory.events").write_text(text)

    def log(self, line: bytes) -> None:
        with self._log.open("ab") as file:
            file.write(b"6,99,1,-;" + line + b"\n")

    def ends(self, exit_: Exit = KILLED) -> tuple[ExitKind, str]:
        ended = self.memory.ended(SPEC, PID, exit_)
        return ended.kind, ended.cause

    def close(self) -> None:
        self.memory.close()
        self._loop.close()


@pytest.fixture
def host(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    def rmdir(path: Path) -> None:
        for entry in path.iterdir():
            entry.unlink()
        os.rmdir(path)

    monkeypatch.setattr(cgroup.Path, "rmdir", rmdir)  # a control group is removed with its files
    made = Host(tmp_path, groups=getattr(request, "param", True))
    yield made
    made.close()


def test_a_kill_by_its_own_group_is_its_own_limit(host: Host) -> None:
    host.killed_in_its_group()
    kind, cause = host.ends()
    assert kind is ExitKind.MEMORY_LIMIT
    assert cause == "killed by SIGKILL by the kernel: over its memory limit of 100 MiB"


def test_a_kill_in_its_group_for_want_of_all_memory_is_not_its_own_limit(host: Host) -> None:
    host.killed_in_its_group(went_over=0)
    assert host.ends() == (ExitKind.OOM_KILLED, "killed by SIGKILL by the kernel: out of memory")


@pytest.mark.parametrize("host", [True, False], indirect=True)
def test_a_kill_that_the_kernel_s_log_names_is_the_host_s_lack_of_memory(host: Host) -> None:
    host.log(b"Out of memory: Killed process 4711 (mp:1/m) total-vm:9kB, anon-rss:8kB, file-rss:0kB, UID:0")
    assert host.ends() == (ExitKind.OOM_KILLED, "killed by SIGKILL by the kernel: out of memory")


@pytest.mark.parametrize("host", [True, False], indirect=True)
def test_where_the_log_says_nothing_the_count_of_kills_does(host: Host) -> None:
    host.log(b"Out of memory: Killed process 815 (mp:1/other) total-vm:9kB")
    host.kills += 1
    kind, cause = host.ends()
    assert kind is ExitKind.OOM_KILLED
    assert "probably" in cause


@pytest.mark.parametrize("host", [True, False], indirect=True)
def test_a_kill_that_nobody_counted_is_somebody_s(host: Host) -> None:
    assert host.ends() == (ExitKind.SIGNAL, "killed by SIGKILL")


def test_what_we_kill_ourselves_is_not_looked_for(host: Host) -> None:
    host.kills += 1
    host.memory.killed(PID)
    assert host.ends() == (ExitKind.SIGNAL, "killed by SIGKILL")


def test_another_end_than_a_kill_is_what_it_is(host: Host) -> None:
    host.kills += 1
    assert host.ends(Exit.from_wait_status(signal.SIGABRT)) == (ExitKind.SIGNAL, "killed by SIGABRT")


@pytest.mark.parametrize("group", [None, Path("/sys/fs/cgroup")])
def test_that_the_kernel_would_end_the_whole_pool_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, group: Path | None
) -> None:
    monkeypatch.setattr(worker_memory, "ended_together", lambda: group)
    Host(tmp_path, groups=False).close()
    assert caplog.text.count("the kernel ends the whole pool, not one worker cgroup=/sys/fs/cgroup") == bool(group)


def test_a_watch_that_cannot_read_for_a_while_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as for want of a descriptor. It says so once."""
    seen: list[Sample] = []
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 3)

    def available_bytes() -> int:
        # The thread of another test's watch may be at its last look.
        for error in failures if threading.current_thread().name == "memory of 1" else ():
            raise error
        return 5

    async def run() -> None:
        watch = MemoryWatch(asyncio.get_running_loop(), lambda _, sample: seen.append(sample))
        watch.watch(Incarnation(1), os.getpid(), 1 << 50, "watch")
        async with asyncio.timeout(20):
            while not seen:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0)
        watch.close()

    monkeypatch.setattr(memory_watch, "PERIOD_S", 0.0)
    monkeypatch.setattr(host_memory, "available_bytes", available_bytes)
    asyncio.run(run())
    assert seen[0].limit_bytes == 1 << 50
    assert caplog.text.count("memory of a worker not seen") == 1
    assert "Too many open files" in caplog.text


def test_a_watch_ends_with_its_process(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    run = MemoryWatch._run

    def noted(*arguments: Any) -> None:
        run(*arguments)
        ended.set()

    async def watch_nobody() -> None:
        MemoryWatch(asyncio.get_running_loop(), lambda *_: None).watch(Incarnation(1), 1 << 30, 1, "watch")
        assert await asyncio.to_thread(ended.wait, 20)

    monkeypatch.setattr(MemoryWatch, "_run", noted)
    asyncio.run(watch_nobody())
    assert caplog.text == ""
