"""The supervisor's ROUTER: control messages from and to frontends, workers and the command line. Event loop only.

A peer that is not there, or does not read, loses the message and is named in the log; nothing ever waits for it. What
must not be lost is repeated by its owner (routes are whole tables, deaths are seen by exits).
"""

import asyncio
import logging
from collections.abc import Callable

import zmq

from .wire import codec, sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.sockets import Peer
from .wire.status import FailedPrecondition, InvalidArgument

log = logging.getLogger(__name__)

_BURST = 64
_LINGER_MS = 200


class ControlSocket:
    """One ROUTER bound at `endpoint`. `received` is called in the loop for every message that can be read."""

    def __init__(self, endpoint: str, received: Callable[[Peer, Incarnation, Message], None]) -> None:
        """Raises FailedPrecondition when the endpoint cannot be bound."""
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._drain_scheduled = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        sockets.configure_router(self._socket, sockets.CONTROL_HWM)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise FailedPrecondition(f"runtime_dir: cannot bind {endpoint}: {error}") from error
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)

    def send(self, peer: Peer, incarnation: Incarnation, message: Message) -> bool:
        """False when the peer is not connected or its queue is full."""
        try:
            self._socket.send_multipart([sockets.identity(peer, incarnation), codec.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            names = fields(peer=peer, incarnation=incarnation, message=type(message).__name__, error=error)
            log.warning("control message not sent %s", names)
            return False
        finally:
            self._rearm()
        return True

    def close(self) -> None:
        """Messages that were just sent still have a moment to leave."""
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=_LINGER_MS)
        self._context.term()

    def _rearm(self) -> None:
        """ZeroMQ's descriptor is edge-triggered and any call on the socket may take the edge: look again soon."""
        if not self._drain_scheduled and self._readable():
            self._drain_scheduled = True
            self._loop.call_soon(self._drain_again)

    def _drain_again(self) -> None:
        self._drain_scheduled = False
        self._drain()

    def _drain(self) -> None:
        """Read a burst; the rest in the loop's next turn."""
        try:
            for _ in range(_BURST):
                if not self._readable():
                    return
                self._handle(self._socket.recv_multipart(zmq.NOBLOCK))
        finally:
            self._rearm()

    def _readable(self) -> bool:
        return not self._socket.closed and bool(int(self._socket.getsockopt(zmq.EVENTS)) & int(zmq.POLLIN))

    def _handle(self, frames: list[bytes]) -> None:
        try:
            if len(frames) != 2:
                raise InvalidArgument(f"control message: expected 2 frames, got {len(frames)}")
            peer, incarnation = sockets.parse_identity(frames[0])
            message = codec.decode(frames[1])
        except InvalidArgument as error:
            log.warning("control message refused %s", fields(error=error.message))
            return
        self._received(peer, incarnation, message)
