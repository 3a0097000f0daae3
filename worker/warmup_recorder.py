"""Records a warmup file from live traffic: an even sample of the requests that were answered well.

Off unless asked. The main thread offers payloads, at the cost of one attribute check while nothing is recorded; the
control thread starts a recording and notices its end; a thread of its own turns the sample into records and writes
them, so that neither requests nor heartbeats wait for a disk. Knows neither sockets nor TensorFlow.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import (
    OK,
    Code,
    FailedPrecondition,
    InvalidArgument,
    PoolError,
    Status,
    Unavailable,
    truncated,
)
from modelpool.supervisor.wire.worker_messages import RecordWarmup, WarmupRecorded

from .prediction_logs import MAX_RECORDS

log = logging.getLogger(__name__)

# What the payloads of one recording may take in memory.
MAX_SAMPLE_BYTES = 64 << 20

# The PredictionLog of a payload, by the method that brought it (`Calls.readers`). Raises PoolError.
Readers = dict[Method, Callable[[bytes], Any]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as it came."""

    method: Method
    payload: bytes


class Reservoir:
    """An even random sample of a stream of unknown length (Vitter's algorithm R), bounded in number and bytes.

    When the bytes do not fit, the sample shrinks for good by random ones; what is left is still even.
    """

    def __init__(self, count: int, max_bytes: int, random: Random) -> None:
        self.samples: list[Sample] = []
        self._capacity = count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._seen = 0
        self._random = random

    def offer(self, sample: Sample) -> None:
        """Take the sample, in the place of another or not at all. One that alone exceeds the bytes is not counted."""
        if len(sample.payload) > self._max_bytes:
            return
        self._seen += 1
        if len(self.samples) < self._capacity:
            self.samples.append(sample)
        else:
            place = self._random.randrange(self._seen)
            if place >= self._capacity:
                return
            self._bytes -= len(self.samples[place].payload)
            self.samples[place] = sample
        self._bytes += len(sample.payload)
        while self._bytes > self._max_bytes:
            victim = self.samples.pop(self._random.randrange(len(self.samples)))
            self._bytes -= len(victim.payload)
            self._capacity = len(self.samples)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording under way; `ends_s` on the recorder's clock."""

    order: RecordWarmup
    reservoir: Reservoir
    ends_s: float


class WarmupRecorder:
    """At most one recording at a time. `recording` is None while there is none to offer to."""

    def __init__(
        self,
        say: Callable[[WarmupRecorded], None],
        write: Callable[[str, Iterable[bytes]], int],
        readers: Readers,
        *,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_SAMPLE_BYTES,
    ) -> None:
        self.recording: Recording | None = None
        self._say = say
        self._write = write
        self._readers = readers
        self._random = random or Random()  # noqa: S311 - a sample, no secret
        self._clock = clock
        self._max_bytes = max_bytes
        # Between the main thread and the control thread; taken only while something is recorded.
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        # Until it has nothing to do but to answer: its thread may be alive for longer.
        self._writing = False

    # -- main thread ---------------------------------------------------------------------------------------------

    def offer(self, method: Method, payload: bytes) -> None:
        """A request that was answered well; ask for `recording` first, which is cheaper."""
        with self._lock:
            if self.recording is not None and method in self._readers:
                self.recording.reservoir.offer(Sample(method, payload))

    def close(self, timeout_s: float) -> None:
        """Give up the recording under way, and let one that is being written be finished."""
        with self._lock:
            recording, self.recording = self.recording, None
            writer = self._writer
        if recording is not None:
            error = Unavailable("The worker was stopped before the recording had ended; nothing was written")
            self._answer(recording.order, error.status, 0)
        if writer is not None:
            writer.join(timeout_s)

    # -- control thread ------------------------------------------------------------------------------------------

    def start(self, order: RecordWarmup) -> None:
        """Start recording, or say why not."""
        try:
            _check(order)
            if self.recording is not None or self._writing:
                raise FailedPrecondition("A warmup recording of this model is under way already")
        except PoolError as error:
            self._answer(order, error.status, 0)
            return
        reservoir = Reservoir(order.count, self._max_bytes, self._random)
        self.recording = Recording(order, reservoir, self._clock() + order.seconds)
        log.info("warmup recording started %s", fields(path=order.path, count=order.count, seconds=order.seconds))

    def drop(self, token: int) -> None:
        """End this recording without a file and without an answer; one that is being written is finished."""
        with self._lock:
            recording = self.recording
            if recording is None or recording.order.token != token:
                return
            self.recording = None
        log.info("warmup recording dropped %s", fields(path=recording.order.path))

    @property
    def ends_s(self) -> float:
        """When `finish_due` is to be called next; infinite while nothing is recorded."""
        recording = self.recording
        return math.inf if recording is None else recording.ends_s

    def finish_due(self) -> None:
        """Write the recording whose time is over, in a thread of its own, which answers."""
        if self._clock() < self.ends_s:
            return
        with self._lock:
            recording, self.recording = self.recording, None
            if recording is None:
                return
            self._writer = threading.Thread(
                target=self._run_write, args=(recording,), name="warmup-writer", daemon=True
            )
            self._writing = True
            self._writer.start()

    # -- the writer's thread -------------------------------------------------------------------------------------

    def _run_write(self, recording: Recording) -> None:
        order, count = recording.order, 0
        try:
            if not recording.reservoir.samples:
                raise FailedPrecondition(f"No request was answered within {order.seconds:g} s; nothing was written")
            count = self._write(order.path, (self._record(sample) for sample in recording.reservoir.samples))
            status = OK
        except PoolError as error:
            status = error.status
        except Exception as error:  # the root of this thread
            log.exception("warmup recording failed %s", fields(path=order.path))
            status = Status(Code.INTERNAL, f"{type(error).__name__}: {error}")
        self._writing = False
        self._answer(order, status, count)

    def _record(self, sample: Sample) -> bytes:
        """A serialized PredictionLog."""
        raw: bytes = self._readers[sample.method](sample.payload).SerializeToString()
        return raw

    def _answer(self, order: RecordWarmup, status: Status, records: int) -> None:
        log.info("warmup recording ended %s", fields(path=order.path, records=records, status=status))
        self._say(WarmupRecorded(order.token, status.code, truncated(status.message), records))


def _check(order: RecordWarmup) -> None:
    """Raises InvalidArgument. More records than a warmup file may have would make the model unloadable."""
    if not 1 <= order.count <= MAX_RECORDS:
        raise InvalidArgument(f"count: expected 1 to {MAX_RECORDS}, got {order.count}")
    if not 0 < order.seconds < math.inf:
        raise InvalidArgument(f"seconds: expected more than 0, got {order.seconds:g}")
    if not order.path.startswith("/"):
        raise InvalidArgument(f"path: expected an absolute path, got {order.path!r}")
