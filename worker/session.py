"""The worker's data plane: takes requests from its ROUTER in bursts, has them executed in their order, answers.

Main thread only, which owns the socket and executes: a request crosses no thread on its way to the model. Requests
wait in a bounded queue of this process, where they can be cancelled, expire, or go with the frontend that sent them;
what finds it full is refused. The socket is read between two executions, so what comes during a long one waits in
ZeroMQ's own bounded queue.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import zmq

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, InvalidArgument, Unavailable

from . import cuda
from .control import Gauge
from .executor import Answer, failed
from .metrics import WorkerMetrics
from .request_queue import Request, RequestQueue

if TYPE_CHECKING:
    from .request_log import RequestLogger
    from .warmup_recorder import WarmupRecorder

log = logging.getLogger(__name__)

# A frontend has at most DATA_HWM requests in flight here. Several may, and one that died may have left as many.
CAPACITY = 8 * sockets.DATA_HWM
# Replies to one frontend that may wait to be read. A frontend bounds what it has in flight below this, so only one
# that stands still, and will be replaced, fills it.
_REPLY_HWM = 4 * sockets.DATA_HWM
# Plain integers: arithmetic on pyzmq's enums costs more than the calls they are for.
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
# From here on tensors and replies are referred to instead of being copied; below, copying is cheaper.
_ZERO_COPY_BYTES = 64 * 1024
# While requests wait, the socket is looked at, and answers leave, this often. Each wake-up of ZeroMQ's thread costs
# as much as a small request.
_LOOK_EVERY_NS = 500_000
_SEND_EVERY = 8
_DEAD_FRONTENDS = 64
_FULL = "The batch scheduling queue to which this task was submitted is full"
_RETRY_AFTER_MS = (10, 5_000)


@dataclass(frozen=True, slots=True)
class Observers:
    """Who looks at what this worker answers."""

    gauge: Gauge
    metrics: WorkerMetrics
    recorder: "WarmupRecorder"
    request_log: "RequestLogger"


class Session:
    """Serves one bound endpoint until told to stop."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        execute: Callable[[Request], Answer],
        stop_fd: int,
        observers: Observers,
        *,
        capacity: int = CAPACITY,
    ) -> None:
        self._execute = execute
        self._observers = observers
        self._queue = RequestQueue(capacity)
        self._frontends: dict[bytes, Incarnation] = {}
        self._dropped: SimpleQueue[Incarnation] = SimpleQueue()
        # What a dead frontend had sent may be read long after its death.
        self._gone: deque[Incarnation] = deque(maxlen=_DEAD_FRONTENDS)
        self._unsent: list[Answer] = []
        self._looked_ns = self._sent_ns = 0
        self._request_ns = 0.0
        self._stop_fd = stop_fd
        self._broken = ""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._socket = context.socket(zmq.ROUTER)
        sockets.configure_router(self._socket, sockets.DATA_HWM)
        self._socket.setsockopt(zmq.SNDHWM, _REPLY_HWM)
        self._socket.bind(endpoint)
        self._poller = zmq.Poller()
        for source in (self._socket, stop_fd, self._wake_fd):
            self._poller.register(source, zmq.POLLIN)

    def run(self) -> str:
        """Serve until `stop_fd` is readable and nothing waits; "", or why this process can serve no more."""
        while not self._broken:
            now_ns = time.monotonic_ns()
            if not self._queue or now_ns - self._looked_ns > _LOOK_EVERY_NS or not self._dropped.empty():
                self._look(now_ns)
            request = self._queue.take()
            if request is not None:
                self._serve(request)
                if len(self._unsent) >= _SEND_EVERY or not self._queue or now_ns - self._sent_ns > _LOOK_EVERY_NS:
                    self._send_answers()
            elif not self._wait():
                return ""
        self._send_answers()
        return self._broken

    def drop_frontend(self, incarnation: Incarnation) -> None:
        """A frontend is gone: what it has asked and is not executed yet need not be. Any thread."""
        self._dropped.put(incarnation)
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        self._socket.close(linger=1000)

    # -- in ------------------------------------------------------------------------------------------------------

    def _wait(self) -> bool:
        """Until there is something to do; False when the worker is to stop."""
        self._observers.metrics.settle()
        ready = dict(self._poller.poll())
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
            self._drop_frontends()
        return self._socket in ready or self._stop_fd not in ready

    def _look(self, now_ns: int) -> None:
        """Read what has come; not more than the queue holds, so that a flood keeps nobody from being served."""
        self._looked_ns = now_ns
        if not self._dropped.empty():
            self._drop_frontends()
        receive = self._socket.recv
        try:
            for _ in range(CAPACITY):
                peer = receive(_NOBLOCK)
                head: Any = receive(_NOBLOCK, copy=False)
                if not head.more:
                    log.warning("request refused %s", fields(error="expected 3 frames, got 2"))
                    continue
                frame: Any = receive(_NOBLOCK, copy=False)
                if frame.more:
                    self._skip_message()
                    continue
                self._take(peer, head.bytes, frame, now_ns)
        except zmq.Again:
            pass

    def _skip_message(self) -> None:
        more = True
        while more:
            frame: Any = self._socket.recv(_NOBLOCK, copy=False)
            more = frame.more
        log.warning("request refused %s", fields(error="expected 3 frames, got more"))

    def _take(self, peer: bytes, head: bytes, frame: Any, now_ns: int) -> None:
        try:
            request_id, deadline_ns, sent_ns, method, alone = data.request_fields(head)
            frontend = self._frontends.get(peer) or self._meet(peer)
        except InvalidArgument as error:
            log.warning("request refused %s", fields(error=error.message))
            return
        if frontend in self._gone:
            return
        if method is Method.CANCEL:
            self._queue.cancel(frontend, request_id)
            return
        refers = method is Method.PREDICT and len(frame) >= _ZERO_COPY_BYTES
        payload = frame.buffer if refers else frame.bytes
        request = Request(peer, frontend, request_id, deadline_ns, sent_ns, now_ns, method, alone, payload)
        if not self._queue.put(request):
            self._answered(failed(request, Unavailable(_FULL).status))

    def _meet(self, peer: bytes) -> Incarnation:
        """A frontend that is heard of for the first time. Raises InvalidArgument for another peer."""
        incarnation = sockets.parse_identity(peer)[1]
        self._frontends[peer] = incarnation
        return incarnation

    def _drop_frontends(self) -> None:
        while True:
            try:
                gone = self._dropped.get_nowait()
            except Empty:
                return
            self._gone.append(gone)
            count = self._queue.drop_frontend(gone)
            self._frontends = {peer: known for peer, known in self._frontends.items() if known != gone}
            log.info("dropped the requests of a dead frontend %s", fields(frontend=gone, requests=count))

    # -- out -----------------------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        gauge = self._observers.gauge
        gauge.begin()
        answer = self._execute(request)
        gauge.end()
        if answer.ended_ns:
            # A moving average over some 30 requests.
            self._request_ns += (answer.ended_ns - answer.began_ns - self._request_ns) / 32
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        observers, request = self._observers, answer.request
        observers.metrics.finished(answer)
        if answer.code is Code.OK:
            if observers.recorder.recording is not None:
                observers.recorder.offer(request.method, bytes(request.payload))
            if observers.request_log.on and answer.plan is not None:
                outputs = dict(zip(answer.plan.fetches, answer.outputs, strict=True))
                observers.request_log.answered(request.method, bytes(request.payload), answer.reply, outputs)
        elif cuda.is_lost(answer.code, answer.reply):
            self._broken = answer.reply.decode("utf-8", "replace")
        answer.plan, answer.outputs, request.payload = None, (), b""
        self._unsent.append(answer)

    def _send_answers(self) -> None:
        self._sent_ns = time.monotonic_ns()
        send = self._socket.send
        for answer in self._unsent:
            request, reply = answer.request, answer.reply
            head = data.pack_reply(request.request_id, answer.code, self._retry_after_ms(answer.code))
            try:
                send(request.peer, _NOBLOCK_MORE)
                send(head, _NOBLOCK_MORE)
                send(reply, _NOBLOCK, copy=len(reply) < _ZERO_COPY_BYTES)
            except zmq.ZMQError as error:
                log.warning("reply not sent %s", fields(request=request.request_id, error=error))
        self._unsent.clear()

    def _retry_after_ms(self, code: Code) -> int:
        """When what waits here now will have been executed, about, for a request that was refused."""
        if code is not Code.UNAVAILABLE:
            return 0
        low, high = _RETRY_AFTER_MS
        return max(low, min(high, int(len(self._queue) * self._request_ns / 1e6)))
