"""The data link to one worker: a Dealer that can tell when a dead peer's last words have been read. Event loop.

What a worker had written before it died is still in the kernel, and then in ZeroMQ's I/O thread, when the news of its
death comes by another way. A socket monitor reports the disconnection behind all that was read before it: after that
event, and one more look at the socket, no reply can come any more.

Small requests of one turn of the loop leave at its end as one message.
"""

import asyncio
import logging
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Unavailable

from .callback import guarded
from .dealer import Dealer

log = logging.getLogger(__name__)

# The disconnection is usually known before the death is; this is for a process that outlives its own exit.
GRACE_S = 1.0
_SMALL_BYTES, _MOST_TOGETHER = data.SMALL_BYTES, data.MOST_TOGETHER


class WorkerLink(Dealer):
    """See Dealer; `finish` once, then `close`."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        name: bytes,
        hwm: int,
        on_message: Callable[[list[bytes]], None],
    ) -> None:
        super().__init__(context, endpoint, name, hwm, on_message)
        self._endpoint = endpoint
        self._disconnected = False
        self._on_finished: Callable[[], None] | None = None
        self._outbox: list[tuple[bytes, ...]] = []
        self._grace: asyncio.TimerHandle | None = None
        try:
            self._monitor = self._socket.get_monitor_socket(int(zmq.Event.CONNECTED | zmq.Event.DISCONNECTED))
        except zmq.ZMQError as error:
            super().close()
            raise Unavailable(f"cannot watch the connection to {endpoint}: {error}") from error
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))

    def send(self, *frames: bytes) -> bool:
        """See Dealer. What is put off has room in the queue already."""
        if len(frames) != 2 or len(frames[1]) > _SMALL_BYTES:
            return self._flush() and super().send(*frames)
        outbox = self._outbox
        if 0 < len(outbox) < _MOST_TOGETHER:
            outbox.append(frames)
            return True
        return self._put_off_first(frames)

    def _put_off_first(self, frames: tuple[bytes, ...]) -> bool:
        """Where nothing is put off yet, or as much as leaves together."""
        if not self._flush():
            return False
        self._look_soon()  # also when it is refused: to ask may swallow the edge that tells of a reply
        if not self._has_room and not self._asked_for_room():  # also after a flush, which may have taken the last
            return False
        self._outbox.append(frames)
        return True

    def _asked_for_room(self) -> bool:
        self._readable()
        return self._has_room

    def _flush(self) -> bool:
        outbox = self._outbox
        if outbox and not self._closed:
            frames = outbox[0] if len(outbox) == 1 else data.several_requests(outbox)
            if not super().send(*frames):
                return False
            self._outbox = []
        return True

    def finish(self, on_finished: Callable[[], None]) -> None:
        """The peer is dead: hand over all that it had sent, then call `on_finished`, at once if that is all."""
        self._on_finished = on_finished
        self._outbox.clear()
        self._grace = self._loop.call_later(GRACE_S, self._give_up)
        self._loop.add_reader(self._monitor_fd, self._check)
        self._check()

    @guarded
    def _check(self) -> None:
        while int(self._monitor.getsockopt(zmq.EVENTS)) & int(zmq.POLLIN):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            self._disconnected = event == zmq.Event.DISCONNECTED
        if self._disconnected:
            self._finished()

    @guarded
    def _give_up(self) -> None:
        log.warning("a dead worker's connection did not end %s", fields(endpoint=self._endpoint, waited_s=GRACE_S))
        self._finished()

    def _finished(self) -> None:
        on_finished, self._on_finished = self._on_finished, None
        if on_finished is None or self._closed:
            return
        self._stop_watching()
        while self._readable():
            self._on_message(self._socket.recv_multipart(zmq.NOBLOCK))
        on_finished()

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._monitor_fd)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def close(self, linger_s: float = 0) -> None:
        if self._closed:
            return
        self._stop_watching()
        self._socket.disable_monitor()
        self._monitor.close(0)
        super().close(linger_s)
