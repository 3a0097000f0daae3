"""The supervisor's side of the fork server: asks for workers, hears their pids, starts the server again. Event loop.

A fork server that dies, hangs or cannot be started costs a delay and nothing else: whoever had asked is told that the
worker could not be had, and asks again.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable

import msgpack

from . import child_python
from .wire import codec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.worker_spec import WorkerSpec

log = logging.getLogger(__name__)

MODULE = "modelpool.worker.fork_server"
# One that lived for less than this died young. The first in a row is replaced at once, so that a kill delays no load;
# each one more waits for longer, up to the same time, so that one that cannot live costs a start now and then.
_MIN_LIFE_S = 5.0
_FIRST_WAIT_S = 1.0
# An answer takes milliseconds, on a host without memory some seconds; but the first one of each process waits for
# TensorFlow's import, from a cold disk at worst.
_FIRST_ANSWER_TIMEOUT_S = 300.0
_ANSWER_TIMEOUT_S = 30.0


class ForkServer:
    """One fork server after the other. `answered` gets the pid, or 0 and why there is none."""

    def __init__(
        self, module: str, lifeline_fd: int, log_level: str, answered: Callable[[Incarnation, int, str], None]
    ) -> None:
        self._arguments = child_python.command(module)
        self._lifeline_fd = lifeline_fd
        self._log_level = log_level
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._heard_s = 0.0
        self._has_answered = False
        self._young_deaths = 0
        self._channel: socket.socket | None = None
        self._backlog: deque[tuple[Incarnation, bytes, tuple[int, ...]]] = deque()
        self._asked: dict[Incarnation, float] = {}
        self._watchdog: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it; one that cannot be started is tried again later."""
        if self._closed or self._process is not None:
            return
        self._started_s = self._heard_s = self._loop.time()
        self._has_answered = False
        try:
            self._process, ours = self._new_process()
        except OSError as error:
            log.error("fork server not started %s", fields(error=error))
            self._loop.call_later(_MIN_LIFE_S, self.start)
            return
        self._channel = ours
        self._loop.add_reader(ours.fileno(), self._read)
        log.info("fork server started %s", fields(pid=self._process.pid))
        self._write()

    def _new_process(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        """It, and our end of its channel. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = (theirs.fileno(), self._lifeline_fd)
        command = [*self._arguments, *map(str, fds), self._log_level]
        with theirs:
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return process, ours

    def ask(self, spec: WorkerSpec, fds: tuple[int, ...]) -> None:
        """Ask for a worker that gets these file descriptors; `answered` is called for each that was asked for.

        The descriptors stay the caller's, and open until then.
        """
        self._asked[spec.incarnation] = self._loop.time()
        self._backlog.append((spec.incarnation, codec.encode(spec), fds))
        self._watch()
        self._write()

    def is_asked(self, incarnation: Incarnation) -> bool:
        """Asked for and not answered yet."""
        return incarnation in self._asked

    @property
    def any_asked(self) -> bool:
        return bool(self._asked)

    def withdraw(self, incarnation: Incarnation) -> bool:
        """Take a request back; False when it may have been heard already, and an answer will come."""
        for entry in self._backlog:
            if entry[0] == incarnation:
                self._backlog.remove(entry)
                return True
        return False

    def settle(self, incarnation: Incarnation, pid: int, error: str) -> None:
        """The answer to a request, from wherever it comes; later ones are ignored."""
        if self._asked.pop(incarnation, None) is not None:
            self._answered(incarnation, pid, error)

    def exited(self, cause: str) -> None:
        """Its process is gone and reaped."""
        if self._process is not None:
            self._process.returncode = 0  # reaped by its owner; keeps Popen from waiting for it
        self._read()
        self._drop_channel()
        self._process = None
        waiting = {entry[0] for entry in self._backlog}
        if not self._closed:
            log.error("fork server gone %s", fields(cause=cause))
            died_young = self._loop.time() - self._started_s < _MIN_LIFE_S
            self._young_deaths = self._young_deaths + 1 if died_young else 0
            self._loop.call_later(restart_delay_s(self._young_deaths), self.start)
        for incarnation in [asked for asked in self._asked if asked not in waiting]:
            self.settle(incarnation, 0, f"the fork server was {cause}")

    def close(self) -> None:
        """Kill it for good; its exit is still to be reported, and settles what was asked. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._backlog.clear()
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            return
        for incarnation in list(self._asked):
            self._loop.call_soon(self.settle, incarnation, 0, "there is no fork server any more")

    def _write(self) -> None:
        while self._backlog and self._channel is not None:
            incarnation, raw, fds = self._backlog[0]
            try:
                socket.send_fds(self._channel, [raw], fds)
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._write)
                return
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    break  # it is dying: what waits is for the next one
                self._backlog.popleft()
                self.settle(incarnation, 0, f"its request of {len(raw)} bytes does not fit a message")
                continue
            self._backlog.popleft()
        if self._channel is not None:
            self._loop.remove_writer(self._channel.fileno())

    def _read(self) -> None:
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
            self.settle(Incarnation(number), pid, error)
            self._heard()

    def _heard(self) -> None:
        """It has answered: from now on it is expected to be quick."""
        self._heard_s = self._loop.time()
        if not self._has_answered:
            self._has_answered = True
            if self._watchdog is not None:
                self._watchdog.cancel()
                self._watchdog = None
            self._watch()

    def _overdue_at_s(self) -> float:
        """When the next answer is too late. What waited for this process, or for others' answers, waits from then."""
        timeout_s = _ANSWER_TIMEOUT_S if self._has_answered else _FIRST_ANSWER_TIMEOUT_S
        return max(min(self._asked.values()), self._heard_s) + timeout_s

    def _watch(self) -> None:
        if self._watchdog is None and self._asked and not self._closed:
            self._watchdog = self._loop.call_at(self._overdue_at_s(), self._check)

    def _check(self) -> None:
        """Kill a fork server that does not answer; its death settles the rest."""
        self._watchdog = None
        if not self._asked:
            return
        if self._overdue_at_s() <= self._loop.time():
            if self._process is not None:
                log.error("fork server does not answer, killed %s", fields(pid=self._process.pid))
                os.kill(self._process.pid, signal.SIGKILL)
            self._heard_s = self._loop.time()  # its death, or the next one, has as long again
        self._watch()

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._channel = None


def restart_delay_s(young_deaths: int) -> float:
    """How long there is no fork server after a death; `young_deaths`: so many in a row, this one included."""
    if young_deaths <= 1:
        return 0.0
    return float(min(_MIN_LIFE_S, _FIRST_WAIT_S * 2.0 ** min(young_deaths - 2, 60)))
