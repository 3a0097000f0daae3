"""The worker's link to the supervisor: messages, heartbeats, the order to stop, and the end of the supervisor.

A thread of its own, so that the supervisor hears of this process while the main thread loads or executes. It owns the
control socket; other threads hand it messages by a queue and an eventfd; the main thread is told to stop by another.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import zmq

from modelpool.supervisor.wire import codec, sockets, thread_priority
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.metric_messages import MetricsReport
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code, InvalidArgument
from modelpool.supervisor.wire.worker_messages import (
    EndProfile,
    EndRecording,
    FrontendDied,
    HurtWorker,
    Profile,
    Profiled,
    RecordWarmup,
    SetRequestLog,
    StopWorker,
    WarmupRecorded,
    WorkerHeartbeat,
)
from modelpool.supervisor.wire.worker_spec import WorkerSpec

if TYPE_CHECKING:
    from .chaos import Chaos
    from .profiler import Profiler
    from .request_log import RequestLogger
    from .warmup_recorder import WarmupRecorder

# Exit code of a worker whose supervisor is gone. Nobody is left to read it; it shows up in a trace.
_ORPHANED = 70
# Time between two reports of metrics, in whole heartbeats.
_REPORT_S = 0.9


class Gauge:
    """What the main thread says of itself and heartbeats report. One writer, one reader in another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.served = 0
        self._clock = clock
        self._runs: dict[int, tuple[float, int]] = {}

    def begin(self, run: int, requests: int) -> None:
        """A run begins that serves so many requests."""
        self._runs[run] = (self._clock(), requests)

    def end(self, run: int) -> None:
        del self._runs[run]

    def heartbeat(self) -> WorkerHeartbeat:
        """`busy_s` is the age of the oldest run: of several executors one may hang while the others go on."""
        runs = list(self._runs.values())
        busy_s = self._clock() - min((began_s for began_s, _ in runs), default=math.inf)
        return WorkerHeartbeat(self.served, sum(requests for _, requests in runs), max(0.0, busy_s))


class ControlLink:
    """The link of one incarnation. `stop_fd` becomes readable when the supervisor orders to stop.

    `recorder`, `request_log` and `profiler` are set by the main thread once there is a model whose requests can be
    recorded, logged and traced. So is `on_frontend_died`, called in the link's thread with each frontend that is gone:
    what it has asked and is not executed yet can be dropped. What changes in `metrics` is reported with a heartbeat
    about once a second, and once more at the end.
    """

    def __init__(self, spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]", lifeline_fd: int) -> None:
        self.gauge = Gauge()
        self.metrics = Registry()
        self.recorder: WarmupRecorder | None = None
        self.request_log: RequestLogger | None = None
        self.profiler: Profiler | None = None
        self.chaos: Chaos | None = None
        self.on_frontend_died: Callable[[Incarnation], None] | None = None
        self.stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._spec = spec
        self._lifeline_fd = lifeline_fd
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._context = context
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, message: Message) -> None:
        """Send a message to the supervisor; from any thread, never blocks."""
        self._outbox.put(message)
        os.eventfd_write(self._wake_fd, 1)

    def close(self, timeout_s: float) -> None:
        """Send what was said, then end the thread."""
        self._outbox.put(None)
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        thread_priority.name_this_thread("control")  # one that gives way on the CPUs is heard of nevertheless
        socket = self._context.socket(zmq.DEALER)
        sockets.configure_dealer(socket, sockets.identity(Peer.WORKER, self._spec.incarnation), sockets.CONTROL_HWM)
        # What was said last (the last metrics) must leave this process before it exits.
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(self._spec.control_endpoint)
        poller = zmq.Poller()
        for source in (socket, self._wake_fd, self._lifeline_fd):
            poller.register(source, zmq.POLLIN)
        try:
            self._serve(socket, poller)
        finally:
            socket.close()

    def _serve(self, socket: "zmq.Socket[bytes]", poller: zmq.Poller) -> None:
        next_beat_s = next_report_s = time.monotonic() + self._spec.heartbeat_s
        while True:
            wake_s = next_beat_s if self.recorder is None else min(next_beat_s, self.recorder.ends_s)
            wait_ms = max(0, int((wake_s - time.monotonic()) * 1000) + 1)
            ready = dict(poller.poll(wait_ms))
            if self._lifeline_fd in ready:
                os._exit(_ORPHANED)
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if not self._send_outbox(socket):
                return
            if socket in ready:
                self._receive(socket)
            if self.recorder is not None:
                self.recorder.finish_due()
            if time.monotonic() >= next_beat_s:
                _send(socket, self.gauge.heartbeat())
                if time.monotonic() >= next_report_s:
                    self._report(socket)
                    next_report_s = time.monotonic() + _REPORT_S
                next_beat_s = time.monotonic() + self._spec.heartbeat_s

    def _send_outbox(self, socket: "zmq.Socket[bytes]") -> bool:
        """False when the main thread has closed the link."""
        while True:
            try:
                message = self._outbox.get_nowait()
            except Empty:
                return True
            if message is None:
                self._report(socket)
                return False
            _send(socket, message)

    def _report(self, socket: "zmq.Socket[bytes]") -> None:
        samples = self.metrics.changed()
        if samples and not _send(socket, MetricsReport(samples)):
            self.metrics.lost(samples)

    def _receive(self, socket: "zmq.Socket[bytes]") -> None:
        while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            try:
                message = codec.decode(socket.recv(zmq.NOBLOCK))
            except InvalidArgument:
                continue
            if isinstance(message, StopWorker):
                os.eventfd_write(self.stop_fd, 1)
            elif isinstance(message, RecordWarmup):
                self._start_recording(message)
            elif isinstance(message, EndRecording) and self.recorder is not None:
                self.recorder.drop(message.token)
            elif isinstance(message, SetRequestLog) and self.request_log is not None:
                self.request_log.configure(message.request_log)
            elif isinstance(message, FrontendDied) and self.on_frontend_died is not None:
                self.on_frontend_died(message.incarnation)
            elif isinstance(message, HurtWorker) and self.chaos is not None:
                self.chaos.hurt(message)
            elif isinstance(message, Profile):
                self._start_profile(message)
            elif isinstance(message, EndProfile) and self.profiler is not None:
                self.profiler.end(message.session)

    def _start_profile(self, order: Profile) -> None:
        if self.profiler is None:
            self.say(Profiled(order.token, Code.FAILED_PRECONDITION, "The model is not being served yet", "", False))
        else:
            self.profiler.start(order)

    def _start_recording(self, order: RecordWarmup) -> None:
        if self.recorder is None:
            self.say(WarmupRecorded(order.token, Code.FAILED_PRECONDITION, "The model is not being served yet", 0))
        else:
            self.recorder.start(order)


def _send(socket: "zmq.Socket[bytes]", message: Message) -> bool:
    """False when the queue is full: the supervisor does not read, is stopped or gone, and the lifeline tells which."""
    try:
        socket.send(codec.encode(message), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
