"""The worker's data plane: takes requests from its ROUTER, executes them one by one in their order, answers.

Main thread only, which owns the socket: a request crosses no thread on its way to the model. Requests wait in
ZeroMQ's bounded queue; a full one is refused at the frontend. What has expired while it waited is not executed.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import zmq

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import (
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PoolError,
    Unimplemented,
)

from .control import Gauge
from .metrics import WorkerMetrics

if TYPE_CHECKING:
    from .warmup_recorder import WarmupRecorder

log = logging.getLogger(__name__)

Handler = Callable[[bytes], bytes]
# Replies to one frontend that may wait to be read. A frontend bounds what it has in flight below this, so only one
# that stands still, and will be replaced, fills it.
_REPLY_HWM = 4 * sockets.DATA_HWM
# Error texts are cut where a protocol says so; this only bounds what an op may put into one.
_MAX_ERROR_BYTES = 64 * 1024


class Session:
    """Serves one bound endpoint until told to stop."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        handlers: Mapping[Method, Handler],
        gauge: Gauge,
        stop_fd: int,
        *,
        metrics: WorkerMetrics,
        recorder: "WarmupRecorder",
        flights: FlightRecorder,
    ) -> None:
        self._handlers = handlers
        self._recorder = recorder
        self._gauge = gauge
        self._metrics = metrics
        self._flights = flights
        self._stop_fd = stop_fd
        self._socket = context.socket(zmq.ROUTER)
        sockets.configure_router(self._socket, sockets.DATA_HWM)
        self._socket.setsockopt(zmq.SNDHWM, _REPLY_HWM)
        self._socket.bind(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(stop_fd, zmq.POLLIN)

    def run(self) -> None:
        """Serve until `stop_fd` is readable and the queue is empty."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                ready = dict(self._poller.poll())
                if self._socket not in ready and self._stop_fd in ready:
                    return
                continue
            self._serve(frames)

    def close(self) -> None:
        self._socket.close(linger=1000)

    def _serve(self, frames: list[bytes]) -> None:
        try:
            if len(frames) != 3:
                raise InvalidArgument(f"request: expected 3 frames, got {len(frames)}")
            peer, head, payload = frames
            header = data.unpack_request(head)
            _, frontend = sockets.parse_identity(peer)
        except InvalidArgument as error:
            log.warning("request refused %s", fields(error=error.message))
            return
        if header.method is Method.CANCEL:
            return  # what waits, waits in the socket's queue; whatever can be read has begun
        received_ns = time.monotonic_ns()
        self._gauge.begin()
        self._metrics.begin()
        flight = self._flights.begin(frontend, header.request_id, header.method, len(payload), received_ns)
        code, reply = self._execute(header, payload, received_ns)
        self._flights.end(flight, code, time.monotonic_ns())
        self._gauge.end()
        self._metrics.finished(header, code, received_ns)
        try:
            self._socket.send_multipart(
                [peer, data.pack_reply(header.request_id, code), reply], zmq.NOBLOCK, copy=len(reply) < 65536
            )
        except zmq.ZMQError as error:
            log.warning("reply not sent %s", fields(request=header.request_id, error=error))

    def _execute(self, header: data.RequestHeader, payload: bytes, now_ns: int) -> tuple[Code, bytes]:
        try:
            if header.deadline_ns and now_ns > header.deadline_ns:
                raise DeadlineExceeded("Deadline exceeded while the request waited for the model")
            handler = self._handlers.get(header.method)
            if handler is None:
                raise Unimplemented(f"This worker does not serve {header.method.name}")
            reply = handler(payload)
            if self._recorder.recording is not None:
                self._recorder.offer(header.method, payload)
            return Code.OK, reply
        except PoolError as error:
            return error.status.code, error.status.message.encode("utf-8", "replace")[:_MAX_ERROR_BYTES]
        except Exception as error:
            log.exception("request failed %s", fields(request=header.request_id, method=header.method.name))
            bug = Internal(f"{type(error).__name__}: {error}")
            return bug.code, bug.message.encode("utf-8", "replace")[:_MAX_ERROR_BYTES]
