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
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from .wire import codec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import FrontendSpec, WorkerSpec

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_FORK_SERVER = "modelpool.worker.fork_server"
# A fork server that dies sooner than this after its start is not started again at once.
_FORK_SERVER_MIN_LIFE_S = 5.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by `signal`, or with `code`; neither when it never ran. `cause` says it in words."""

    code: int | None
    signal: int | None
    cause: str

    @classmethod
    def from_wait_status(cls, status: int) -> "Exit":
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return cls(None, number, f"killed by {_signal_name(number)}")
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None, f"exited with code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True)
class ProcessEvents:
    """What the owner wants to hear. Called in the event loop's thread."""

    worker_spawned: Callable[[Incarnation, int], None]
    worker_exited: Callable[[Incarnation, Exit], None]
    frontend_exited: Callable[[Incarnation, Exit], None]


class Processes:
    """All children of the supervisor."""

    def __init__(self, events: ProcessEvents, log_level: str, fork_server: str = _FORK_SERVER) -> None:
        """`fork_server` is the module to run as such; tests bring one that forks workers without TensorFlow."""
        self._events = events
        self._fork_server_module = fork_server
        self._log_level = log_level
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, Incarnation] = {}
        self._frontends: dict[int, Incarnation] = {}
        self._frontend_pipes: dict[int, int] = {}
        # Exits of children that nobody knows: a worker that died before the fork server's answer was read, or an
        # orphan of a worker, which the subreaper inherits.
        self._unclaimed: dict[int, int] = {}
        self._asked: dict[Incarnation, WorkerSpec] = {}
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._fork_server_started_s = 0.0
        self._channel: socket.socket | None = None
        self._backlog: list[bytes] = []
        self._closing = False
        self._child_gone = asyncio.Event()
        _become_subreaper()
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    @property
    def fork_server_pid(self) -> int | None:
        return self._fork_server.pid if self._fork_server is not None else None

    # -- starting --------------------------------------------------------------------------------------------

    def start_fork_server(self) -> None:
        """Start the process that imports TensorFlow and forks workers. It takes requests from the start."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._fork_server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    self._fork_server_module,
                    str(theirs.fileno()),
                    str(self._lifeline_read),
                    self._log_level,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._lifeline_read),
            )
        ours.setblocking(False)
        self._channel = ours
        self._fork_server_started_s = self._loop.time()
        self._loop.add_reader(ours.fileno(), self._read_channel)
        log.info("fork server started %s", fields(pid=self._fork_server.pid))

    def spawn_worker(self, spec: WorkerSpec) -> None:
        """Ask for a worker. Answered by `worker_spawned`, or by `worker_exited` when it could not be had."""
        self._asked[spec.incarnation] = spec
        self._backlog.append(codec.encode(spec))
        self._write_channel()

    def spawn_frontend(self, spec: FrontendSpec) -> int:
        """Start a frontend and hand it its spec; the pid. Its standard input is its lifeline."""
        process = subprocess.Popen(
            [sys.executable, "-m", "modelpool.frontend.main"], stdin=subprocess.PIPE, pass_fds=(), bufsize=0
        )
        assert process.stdin is not None
        raw = codec.encode(spec)
        try:
            process.stdin.write(len(raw).to_bytes(4, "big") + raw)
        except BrokenPipeError:
            log.warning("frontend died at its start %s", fields(pid=process.pid))
        self._frontends[process.pid] = spec.incarnation
        self._frontend_pipes[process.pid] = os.dup(process.stdin.fileno())
        os.set_inheritable(self._frontend_pipes[process.pid], False)
        process.stdin.close()
        process.returncode = 0  # reaped by `_reap`; keeps Popen from waiting for it
        return process.pid

    # -- ending ----------------------------------------------------------------------------------------------

    def kill_worker(self, incarnation: Incarnation) -> None:
        for pid, known in self._workers.items():
            if known == incarnation:
                _kill(pid, signal.SIGKILL)

    def kill_stray_worker(self, pid: int) -> None:
        """A process that calls itself a worker that nobody knows: kill it if it is our child."""
        if pid not in self._workers and _parent_of(pid) == os.getpid():
            _kill(pid, signal.SIGKILL)

    def kill_frontend(self, incarnation: Incarnation) -> None:
        for pid, known in self._frontends.items():
            if known == incarnation:
                _kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill what is left and wait until every child is reaped."""
        self._closing = True
        if self._fork_server is not None:
            _kill(self._fork_server.pid, signal.SIGKILL)
        for pid in [*self._workers, *self._frontends]:
            _kill(pid, signal.SIGKILL)
        self._reap()
        while self._workers or self._frontends or self._fork_server is not None:
            self._child_gone.clear()
            await self._child_gone.wait()
        self._drop_channel()
        self._loop.remove_signal_handler(signal.SIGCHLD)
        os.close(self._lifeline_write)
        os.close(self._lifeline_read)

    # -- the fork server's channel ---------------------------------------------------------------------------

    def _write_channel(self) -> None:
        while self._backlog and self._channel is not None:
            try:
                self._channel.send(self._backlog[0])
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._write_channel)
                return
            except OSError:
                return  # its death is seen by `_reap`, which settles what was asked
            del self._backlog[0]
        if self._channel is not None:
            self._loop.remove_writer(self._channel.fileno())

    def _read_channel(self) -> None:
        while self._channel is not None:
            try:
                raw = self._channel.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                raw = b""
            if not raw:
                self._loop.remove_reader(self._channel.fileno())
                return
            number, pid, error = msgpack.unpackb(raw)
            self._answered(Incarnation(number), pid, error)

    def _answered(self, incarnation: Incarnation, pid: int, error: str) -> None:
        self._asked.pop(incarnation, None)
        if error:
            self._events.worker_exited(incarnation, Exit(None, None, f"could not be forked: {error}"))
            return
        self._workers[pid] = incarnation
        self._events.worker_spawned(incarnation, pid)
        status = self._unclaimed.pop(pid, None)
        if not self._asked:
            self._unclaimed.clear()
        if status is not None:
            self._child_exited(pid, status)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._channel = None

    # -- exits -----------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Collect every dead child: one SIGCHLD may stand for many."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._child_exited(pid, status)

    def _child_exited(self, pid: int, status: int) -> None:
        exit_ = Exit.from_wait_status(status)
        self._child_gone.set()
        if pid in self._workers:
            self._events.worker_exited(self._workers.pop(pid), exit_)
        elif pid in self._frontends:
            os.close(self._frontend_pipes.pop(pid))
            self._events.frontend_exited(self._frontends.pop(pid), exit_)
        elif self._fork_server is not None and pid == self._fork_server.pid:
            self._fork_server_exited(exit_)
        elif self._asked:
            self._unclaimed[pid] = status

    def _fork_server_exited(self, exit_: Exit) -> None:
        assert self._fork_server is not None
        self._fork_server.returncode = 0
        self._read_channel()
        self._drop_channel()
        self._fork_server = None
        self._unclaimed.clear()
        if self._closing:
            return
        log.error("fork server gone %s", fields(cause=exit_.cause))
        self._backlog.clear()
        lived_s = self._loop.time() - self._fork_server_started_s
        self._loop.call_later(max(0.0, _FORK_SERVER_MIN_LIFE_S - lived_s), self._restart_fork_server)
        for incarnation in list(self._asked):
            self._answered(incarnation, 0, f"the fork server {exit_.cause}")

    def _restart_fork_server(self) -> None:
        if not self._closing and self._fork_server is None:
            self.start_fork_server()
            self._write_channel()


def _become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def _kill(pid: int, number: signal.Signals) -> None:
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
