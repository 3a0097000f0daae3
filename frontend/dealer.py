"""One ZeroMQ DEALER in the event loop: to the supervisor, or to one worker. Owned by the loop's thread.

ZeroMQ's file descriptor is edge-triggered and any call on the socket may swallow the edge: after every wake-up, and
after the sends of one turn of the loop, the socket is asked again whether something can be read. Bursts are bounded,
so that a busy peer cannot keep the loop to itself.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.status import Unavailable

from .callback import guarded
from .turn import Turn

_BURST = 64
# Plain integers: arithmetic on pyzmq's enums costs more than the calls they are for.
_EVENTS, _POLLIN, _POLLOUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
# From here on ZeroMQ refers to the caller's bytes instead of copying them; below, copying is cheaper.
_ZERO_COPY_BYTES = 64 * 1024


class Dealer:
    """Connects at once; `on_message` is called in the loop with the frames of each message received.

    What `on_message` raises is a failure of the whole process (see `callback`).
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        name: bytes,
        hwm: int,
        on_message: Callable[[list[bytes]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = Turn.of_loop()
        self._on_message = on_message
        self._drain_scheduled = False
        self._closed = False
        self._has_room = False
        """There was room for a message when last asked, and nothing was sent since."""
        try:
            self._socket = context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise Unavailable(f"cannot open a socket for {endpoint}: {error}") from error
        try:
            sockets.configure_dealer(self._socket, name, hwm)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise Unavailable(f"cannot connect to {endpoint!r}: {error}") from error
        # The method of pyzmq's C part: what its Python part does before costs as much again, and does nothing for us.
        self._send: Any = super(zmq.Socket, self._socket).send
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)
        self._look_soon()

    def send(self, *frames: bytes) -> bool:
        """Queue one message, all or nothing; False when the queue is full. Never blocks."""
        send, last = self._send, frames[-1]
        self._has_room = False
        try:
            for head in frames[:-1]:
                send(head, _NOBLOCK_MORE, True)
            send(last, _NOBLOCK, len(last) < _ZERO_COPY_BYTES)
        except zmq.Again:
            return False
        finally:
            self._look_soon()
        return True

    def close(self, linger_s: float = 0) -> None:
        """Close the socket; what is queued may still leave within `linger_s`. Idempotent."""
        if self._closed:
            return
        self._closed, self._has_room = True, False
        self._loop.remove_reader(self._fd)
        self._socket.close(int(linger_s * 1000))

    def _readable(self) -> bool:
        if self._closed:
            return False
        events = int(self._socket.getsockopt(_EVENTS))
        self._has_room = bool(events & _POLLOUT)
        return bool(events & _POLLIN)

    def _look_soon(self) -> None:
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._turn.at_end(self._drain_again)

    @guarded
    def _drain_again(self) -> None:
        sent = self._flush()
        self._drain_scheduled = False  # not before: a look comes after this send anyway
        if not sent:
            self._look_soon()
        self._drain_burst()

    @guarded
    def _drain(self) -> None:
        self._flush()
        if self._closed:
            return
        try:
            frames = self._next()  # mostly a message is why it is called; to ask before costs as much as to receive one
        except zmq.Again:
            return
        self._on_message(frames)
        self._drain_burst()

    def _flush(self) -> bool:
        """Send what was put off to the end of the turn; False when it could not be sent yet."""
        return True

    def _drain_burst(self) -> None:
        for _ in range(_BURST):
            if not self._readable():
                return
            self._on_message(self._next())
        self._look_soon()

    def _next(self) -> list[bytes]:
        """The frames of the next message. Raises zmq.Again where there is none."""
        receive = self._socket.recv
        # Not copied at once: so the frame says whether there are more, and to ask the socket costs twice as much.
        frame = receive(_NOBLOCK, False)
        frames = [frame.bytes]
        while frame.more:
            frame = receive(_NOBLOCK, False)
            frames.append(frame.bytes)
        return frames
