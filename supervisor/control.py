"""The supervisor's ROUTER: control messages from and to frontends, workers and the command line. Event loop only.

A peer that is not there, or does not read, loses the message and is named in the log; nothing ever waits for it. What
must not be lost is repeated by its owner (routes are whole tables, deaths are seen by exits).
"""

import asyncio
import logging
from collections.abc import Callable

import zmq
import zmq.asyncio

from .wire import codec, sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.sockets import Peer
from .wire.status import InvalidArgument

log = logging.getLogger(__name__)


class ControlSocket:
    """One ROUTER bound at `endpoint`. `received` is called for every message that can be read."""

    def __init__(self, endpoint: str, received: Callable[[Peer, Incarnation, Message], None]) -> None:
        self._received = received
        self._context = zmq.asyncio.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        sockets.configure_router(self._socket, sockets.CONTROL_HWM)
        self._socket.bind(endpoint)
        self._task = asyncio.create_task(self._run(), name="control")

    @property
    def task(self) -> "asyncio.Task[None]":
        """Ends only by an error, which the owner must raise."""
        return self._task

    def send(self, peer: Peer, incarnation: Incarnation, message: Message) -> bool:
        """False when the peer is not connected or its queue is full."""
        try:
            zmq.Socket.send_multipart(
                self._socket, [sockets.identity(peer, incarnation), codec.encode(message)], flags=zmq.NOBLOCK
            )
        except zmq.ZMQError as error:
            names = fields(peer=peer, incarnation=incarnation, message=type(message).__name__, error=error)
            log.warning("control message not sent %s", names)
            return False
        return True

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close(linger=0)
        self._context.term()

    async def _run(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            try:
                if len(frames) != 2:
                    raise InvalidArgument(f"control message: expected 2 frames, got {len(frames)}")
                peer, incarnation = sockets.parse_identity(frames[0])
                message = codec.decode(frames[1])
            except InvalidArgument as error:
                log.warning("control message refused %s", fields(error=error.message))
                continue
            self._received(peer, incarnation, message)
