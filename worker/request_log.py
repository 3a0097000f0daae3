"""Logs a sampled share of the requests that were answered OK, with their answers, to files. Off unless configured.

The thread that answers draws, and hands what is drawn to a queue that is bounded in bytes; a thread of this module
makes records of it and writes them, so that no request waits for a disk. What does not fit is dropped and counted;
so is what a full disk or a missing directory does not take, and the next record is tried again.
TF Serving: core/server_request_logger.cc and request_logger.cc, whose open-source server has no collector at all.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from random import Random

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, PoolError
from modelpool.supervisor.wire.worker_spec import RequestLog

from .log_files import LogFiles
from .logged_requests import REST_METHODS, Answered, Outputs

log = logging.getLogger(__name__)

# What the requests that wait to be written may take in memory.
MAX_WAITING_BYTES = 64 << 20
# Nobody needs to read more often that a disk is full.
_COMPLAIN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Seams:
    """What a request log needs. `make`: a record (LogMaker.make); `files`: where records go under a configuration;
    `count`: is told the outcome of every request that was drawn; `methods`: those whose requests can be logged."""

    make: Callable[[Answered, float], bytes]
    files: Callable[[RequestLog], LogFiles]
    count: Callable[[Code], None]
    methods: Container[Method]


@dataclass(frozen=True, slots=True)
class _Drawn:
    answered: Answered
    size_bytes: int


# What waits for the writer: a request, or a new configuration from which on the requests after it are logged.
_Entry = _Drawn | RequestLog | None


class RequestLogger:
    """The request log of one worker's model."""

    def __init__(
        self,
        seams: Seams,
        *,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._seams = seams
        self._random = random or Random()  # noqa: S311 - a sample, no secret
        self._max_waiting_bytes = max_waiting_bytes
        self._rate = 0.0
        # Guards what follows; held for moments only, never while something is written.
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._writer: threading.Thread | None = None
        # Of the writer's thread alone.
        self._files: LogFiles | None = None
        self._complaint = _Complaint(clock)

    # -- the threads that answer and that control ------------------------------------------------------------------

    def configure(self, settings: RequestLog | None) -> None:
        """Log so from now on; None: log nothing. Any thread."""
        with self._changed:
            if settings is not None and self._writer is None:
                self._writer = threading.Thread(target=self._run, name="request-log", daemon=True)
                self._writer.start()
            self._rate = settings.sampling_rate if settings is not None else 0.0
            self._waiting.append(settings)
            self._changed.notify()

    @property
    def on(self) -> bool:
        """Whether anything is logged; asked first, which is cheaper than `answered`."""
        return self._rate > 0.0

    def answered(self, method: Method, payload: bytes, reply: bytes, outputs: Outputs) -> None:
        """A request was answered OK: log it, if it is drawn. `outputs`: of its run, by tensor name."""
        if method in self._seams.methods and self._random.random() < self._rate:
            self._offer(Answered(method, payload, reply, outputs if method in REST_METHODS else {}))

    def close(self, timeout_s: float) -> None:
        """Write what waits and complete the file, within the time."""
        with self._changed:
            self._rate = 0.0
            self._closing = True
            self._changed.notify()
        if self._writer is not None:
            self._writer.join(timeout_s)

    def _offer(self, answered: Answered) -> None:
        size = answered.size_bytes
        with self._changed:
            taken = self._waiting_bytes + size <= self._max_waiting_bytes
            if taken:
                self._waiting_bytes += size
                self._waiting.append(_Drawn(answered, size))
                self._changed.notify()
        if not taken:
            self._seams.count(Code.UNAVAILABLE)

    # -- the writer's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._write_waiting():
                pass
            self._reconfigure(None)
        except Exception:  # the root of this thread
            log.exception("request log failed, nothing is logged any more")
            self._rate = 0.0

    def _write_waiting(self) -> bool:
        """Write all that waits, once there is something; False when nothing more will come."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return False
        while True:
            with self._changed:
                if not self._waiting:
                    break
                entry = self._waiting.popleft()
                if isinstance(entry, _Drawn):
                    # While it is written it takes memory still, but one request more does no harm.
                    self._waiting_bytes -= entry.size_bytes
            if isinstance(entry, _Drawn):
                self._write(entry.answered)
            else:
                self._reconfigure(entry)
        self._on_disk(lambda files: files.flush())
        return True

    def _write(self, answered: Answered) -> None:
        files = self._files
        if files is None:
            return
        try:
            record = self._seams.make(answered, files.settings.sampling_rate)
        except PoolError as error:
            self._failed(error.status.code, error.message)
            return
        if self._on_disk(lambda files: files.append(record)):
            self._seams.count(Code.OK)

    def _reconfigure(self, settings: RequestLog | None) -> None:
        self._on_disk(lambda files: files.finish())
        self._files = None if settings is None else self._seams.files(settings)

    def _on_disk(self, work: Callable[[LogFiles], None]) -> bool:
        """Whether it was done; what the disk refuses is counted, and the file in progress is given up."""
        if self._files is None:
            return False
        try:
            work(self._files)
        except (PoolError, OSError) as error:
            self._refused(error)
            try:
                self._files.abandon()
            except (PoolError, OSError) as another:
                log.debug("request log not closed %s", fields(error=another))
            return False
        return True

    def _refused(self, error: PoolError | OSError) -> None:
        if isinstance(error, PoolError):
            self._failed(error.status.code, error.message)
        else:
            self._failed(Code.UNKNOWN, str(error))

    def _failed(self, code: Code, text: str) -> None:
        self._seams.count(code)
        self._complaint.make(text)


class _Complaint:
    """Says that requests are not logged, and says it again only after a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_s = float("-inf")
        self._lost = 0

    def make(self, error: str) -> None:
        self._lost += 1
        if self._clock() < self._next_s:
            return
        log.error("requests not logged %s", fields(lost=self._lost, error=error))
        self._next_s = self._clock() + _COMPLAIN_EVERY_S
        self._lost = 0
