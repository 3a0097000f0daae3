"""Starts, watches and kills processes: the only module that does. Runs in the supervisor's event loop.

The supervisor is made a child subreaper (prctl(2)), and the fork server forks each worker twice, so that workers are
reparented to the supervisor itself: it is their parent, their exit is the authority on their death, and the fork
server's own death touches none of them. Every child also holds the read end of the lifeline pipe, whose end of file
says that the supervisor is gone.
"""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from . import child_python, fork_server
from .arenas import Arenas, SharedMemory
from .black_box import BlackBox
from .cgroup import MemoryGroups
from .exits import Exit
from .fork_server import ForkServer
from .memory_limit import Sample
from .wire import codec, stack_dump
from .wire.frontend_spec import FrontendSpec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.sockets import Peer
from .wire.worker_spec import WorkerSpec
from .worker_memory import WorkerMemory

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_FRONTEND = "modelpool.frontend.main"
# How often, and how many times, it is looked whether a hung worker's stacks are written.
_DUMP_LOOK_S = 0.025
_DUMP_LOOKS = 20


@dataclass(frozen=True, slots=True)
class ProcessEvents:
    """What the owner wants to hear. Called in the event loop's thread."""

    worker_spawned: Callable[[Incarnation, int], None]
    worker_exited: Callable[[Incarnation, Exit], None]
    frontend_exited: Callable[[Incarnation, Exit], None]
    worker_memory: Callable[[Incarnation, Sample], None] = lambda incarnation, sample: None
    """Only of workers that have a limit."""


class Processes:
    """All children of the supervisor."""

    def __init__(
        self,
        events: ProcessEvents,
        log_level: str,
        fork_server: str = fork_server.MODULE,
        groups: MemoryGroups | None = None,
        arenas: Arenas | None = None,
    ) -> None:
        """`fork_server` is the module to run as such; tests bring one that forks workers without TensorFlow.

        `groups`: where the kernel can be told of the limits of workers. `arenas`: shared memory of the children.
        """
        self._events = events
        self._arenas = arenas or Arenas(Path(), 0, 0)
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, Incarnation] = {}
        self._boxes: dict[Incarnation, BlackBox] = {}
        self._doomed: set[Incarnation] = set()
        self._memory = WorkerMemory(self._loop, events.worker_memory, groups)
        self._frontends: dict[int, Incarnation] = {}
        self._frontend_pipes: dict[int, IO[bytes]] = {}
        # Exits of children that nobody knows: a worker that died before the fork server's answer was read, or an
        # orphan of a worker, which the subreaper inherits.
        self._unclaimed: dict[int, tuple[int, int]] = {}
        self._closing = False
        self._child_gone = asyncio.Event()
        _become_subreaper()
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._fork_server = ForkServer(fork_server, self._lifeline_read, log_level, self._answered)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    @property
    def fork_server_pid(self) -> int | None:
        return self._fork_server.pid

    @property
    def shared_memory(self) -> SharedMemory:
        """What the children have of it together."""
        return self._arenas.taken

    # -- starting --------------------------------------------------------------------------------------------

    def start_fork_server(self) -> None:
        """Start the process that imports TensorFlow and forks workers. It takes requests from the start."""
        self._fork_server.start()

    def spawn_worker(self, spec: WorkerSpec) -> None:
        """Ask for a worker. Answered by `worker_spawned`, or by `worker_exited` when it could not be had."""
        try:
            box = BlackBox(self._loop, spec)
        except OSError as error:
            exit_ = Exit(None, None, f"could not be started: no flight recorder: {error}")
            self._loop.call_soon(self._events.worker_exited, spec.incarnation, exit_)
            return
        self._boxes[spec.incarnation] = box
        self._arenas.make(Peer.WORKER, spec.incarnation)
        self._fork_server.ask(spec, box.given)

    def spawn_frontend(self, spec: FrontendSpec) -> int:
        """Start a frontend and hand it its spec; the pid. Its standard input is its lifeline. Raises OSError."""
        self._arenas.make(Peer.FRONTEND, spec.incarnation)
        try:
            process = subprocess.Popen(child_python.command(_FRONTEND), stdin=subprocess.PIPE, bufsize=0)
        except OSError:
            self._arenas.remove(Peer.FRONTEND, spec.incarnation)
            raise
        assert process.stdin is not None
        raw = codec.encode(spec)
        try:
            process.stdin.write(len(raw).to_bytes(4, "big") + raw)
        except BrokenPipeError:
            log.warning("frontend died at its start %s", fields(pid=process.pid))
        self._frontends[process.pid] = spec.incarnation
        self._frontend_pipes[process.pid] = process.stdin
        process.returncode = 0  # reaped by `_reap`; keeps Popen from waiting for it
        return process.pid

    def stderr_of(self, incarnation: Incarnation) -> str:
        """The end of what a living worker has written to its standard error."""
        return self._boxes[incarnation].stderr

    # -- ending ----------------------------------------------------------------------------------------------

    def kill_worker(self, incarnation: Incarnation, *, hung: bool = False) -> None:
        """SIGKILL, as soon as the pid is known; `worker_exited` follows in any case. `hung`: its stacks first."""
        if self._fork_server.is_asked(incarnation):
            self._doomed.add(incarnation)
            if self._fork_server.withdraw(incarnation):
                self._loop.call_soon(self._fork_server.settle, incarnation, 0, "it was not wanted any more")
            return
        for pid, known in self._workers.items():
            if known == incarnation and hung:
                # Continued, where it was stopped: a stopped process handles no signal but SIGKILL.
                _kill(pid, stack_dump.SIGNAL)
                _kill(pid, signal.SIGCONT)
                self._loop.call_later(_DUMP_LOOK_S, self._kill_dumped, pid, incarnation, 0, _DUMP_LOOKS)
            elif known == incarnation:
                self._kill_worker(pid)

    def _kill_dumped(self, pid: int, incarnation: Incarnation, bytes_before: int, looks: int) -> None:
        """Kill it once its stacks are written, or are not going to be."""
        if self._workers.get(pid) != incarnation:
            return
        written_bytes = self._boxes[incarnation].stack_bytes
        if looks == 0 or 0 < written_bytes == bytes_before:
            self._kill_worker(pid)
            return
        self._loop.call_later(_DUMP_LOOK_S, self._kill_dumped, pid, incarnation, written_bytes, looks - 1)

    def stop_worker(self, incarnation: Incarnation) -> None:
        """SIGSTOP: it stands still until it is killed."""
        for pid, known in self._workers.items():
            if known == incarnation:
                _kill(pid, signal.SIGSTOP)

    def _kill_worker(self, pid: int) -> None:
        self._memory.killed(pid)
        _kill(pid, signal.SIGKILL)

    def end_spawning(self) -> None:
        """No worker will be asked for any more: those that are not there yet need not be waited for."""
        self._fork_server.close()

    def worker_said_hello(self, incarnation: Incarnation, pid: int) -> None:
        """A worker has named itself: as good as the fork server's answer. One that nobody wants is killed."""
        if pid in self._workers or _parent_of(pid) != os.getpid():
            return
        if self._fork_server.is_asked(incarnation):
            self._fork_server.settle(incarnation, pid, "")
        else:
            log.warning("killing a worker that nobody knows %s", fields(incarnation=incarnation, pid=pid))
            _kill(pid, signal.SIGKILL)

    def kill_frontend(self, incarnation: Incarnation) -> None:
        for pid, known in self._frontends.items():
            if known == incarnation:
                _kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill what is left and wait until every child is reaped."""
        self._closing = True
        self._fork_server.close()
        for pid in self._workers:
            self._kill_worker(pid)
        for pid in self._frontends:
            _kill(pid, signal.SIGKILL)
        self._reap()
        while self._workers or self._frontends or self._fork_server.pid is not None:
            self._child_gone.clear()
            await self._child_gone.wait()
        await self._end_orphans()
        self._memory.close()
        self._arenas.close()
        self._loop.remove_signal_handler(signal.SIGCHLD)
        os.close(self._lifeline_write)
        os.close(self._lifeline_read)

    async def _end_orphans(self) -> None:
        """Whoever is left has been left by a worker, or was being forked when the fork server was killed."""
        while children := psutil.Process().children():
            self._child_gone.clear()
            for child in children:
                _kill(child.pid, signal.SIGKILL)
            self._reap()
            await self._child_gone.wait()

    # -- what happens ----------------------------------------------------------------------------------------

    def _answered(self, incarnation: Incarnation, pid: int, error: str) -> None:
        doomed = incarnation in self._doomed or self._closing
        self._doomed.discard(incarnation)
        if error:
            self._worker_gone(incarnation, Exit(None, None, f"could not be started: {error}"))
            return
        self._workers[pid] = incarnation
        self._boxes[incarnation].handed_over()
        self._memory.started(self._boxes[incarnation].spec, pid)
        self._events.worker_spawned(incarnation, pid)
        ended = self._unclaimed.pop(pid, None)
        if not self._fork_server.any_asked:
            self._unclaimed.clear()
        if ended is not None:
            self._child_exited(pid, *ended)
        elif doomed:
            self._kill_worker(pid)

    def _reap(self) -> None:
        """Collect every dead child: one SIGCHLD may stand for many."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._child_exited(pid, status, usage.ru_maxrss * 1024)

    def _child_exited(self, pid: int, status: int, peak_rss_bytes: int) -> None:
        exit_ = Exit.from_wait_status(status)
        self._child_gone.set()
        if pid in self._workers:
            incarnation = self._workers.pop(pid)
            exit_ = self._memory.ended(self._boxes[incarnation].spec, pid, exit_)
            self._worker_gone(incarnation, exit_, peak_rss_bytes)
        elif pid in self._frontends:
            self._frontend_pipes.pop(pid).close()
            gone = self._frontends.pop(pid)
            self._arenas.remove(Peer.FRONTEND, gone)
            self._events.frontend_exited(gone, exit_)
        elif pid == self._fork_server.pid:
            self._fork_server.exited(exit_.cause)
            self._unclaimed.clear()
        elif self._fork_server.any_asked:
            self._unclaimed[pid] = status, peak_rss_bytes

    def _worker_gone(self, incarnation: Incarnation, exit_: Exit, peak_rss_bytes: int | None = None) -> None:
        """Read what the worker was at when it died, then tell of the death."""
        box = self._boxes.pop(incarnation)
        self._arenas.remove(Peer.WORKER, incarnation)
        self._events.worker_exited(incarnation, box.open(exit_, peak_rss_bytes))


def _become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def _kill(pid: int, number: int) -> None:
    """Signal a child that is not reaped yet, so that its pid cannot belong to anybody else."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("already gone %s", fields(pid=pid))


def _parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
