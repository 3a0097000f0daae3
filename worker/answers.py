"""Answers on their way out: several small ones in one message, large ones through shared memory. Main thread.

For the session, which owns the socket. What cannot be sent is not sent: its frontend is gone, or stands still and will
be replaced. Only what tells a frontend that its blocks are free again is kept until there is room: nobody asks twice.
"""

import logging
from collections.abc import Callable, Container, Sequence
from typing import Any

import zmq

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.arena import ANSWER_BYTES
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code

from .jobs import Task
from .request_table import TableReply
from .shared_payloads import SharedPayloads

log = logging.getLogger(__name__)

# Plain integers: arithmetic on pyzmq's enums costs more than the calls they are for.
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
# From here on replies are referred to instead of being copied; below, copying is cheaper.
_ZERO_COPY_BYTES = 64 * 1024


class Answers:
    """Sends by `socket`, a ROUTER. Those who are `gone` return nothing that is lent to them."""

    def __init__(self, socket: "zmq.Socket[bytes]", shared: SharedPayloads, gone: Container[int]) -> None:
        # The method of pyzmq's C part: what its Python part does before costs as much again, and does nothing for us.
        self._raw_send: Any = super(zmq.Socket, socket).send
        self._shared = shared
        self._gone = gone

    def send(self, answers: Sequence[Task | TableReply], retry_after_ms: Callable[[Code], int]) -> None:
        """To each frontend its answers in their order. `retry_after_ms`: the hint that goes with a code."""
        small: dict[bytes, list[bytes]] = {}
        for task in answers:
            if isinstance(task, TableReply):
                small.setdefault(task.peer, []).append(task.body)
                continue
            peer, reply = task.request.peer, task.reply
            head = data.pack_reply(task.request.request_id, task.code, retry_after_ms(task.code))
            if len(reply) <= data.SMALL_BYTES:
                small.setdefault(peer, []).append(data.one_of_several_replies(head, bytes(reply)))
            else:
                self._send_small(peer, small.pop(peer, ()))
                self._send_large(task, head)
            task.reply = b""  # it may be made of what shared memory holds
        for peer, replies in small.items():
            self._send_small(peer, replies)
        for peer, request_ids in self._shared.unused().items():
            if self._send(peer, data.pack_returned(request_ids)) == zmq.EAGAIN:
                self._shared.untold(peer, request_ids)

    def _send_small(self, peer: bytes, replies: Sequence[bytes]) -> None:
        if replies:
            self._send(peer, data.SEVERAL_REPLIES, replies[0] if len(replies) == 1 else b"".join(replies))

    def _send_large(self, task: Task, head: bytes) -> None:
        request, reply = task.request, task.reply
        frontend = Incarnation(request.frontend)
        reference = None
        if len(reply) >= ANSWER_BYTES and frontend not in self._gone:
            reference = self._shared.lend(frontend, request.request_id, reply)
        rest = (bytes(reply),) if reference is None else (b"", reference)
        if self._send(request.peer, head, *rest) and reference is not None:
            self._shared.returned(frontend, request.request_id)

    def _send(self, peer: bytes, *frames: bytes) -> int:
        """0, or why it was not sent: EHOSTUNREACH, EAGAIN for a frontend that has not read what waits for it."""
        send, last = self._raw_send, frames[-1]
        try:
            send(peer, _NOBLOCK_MORE, True)
            for frame in frames[:-1]:
                send(frame, _NOBLOCK_MORE, True)
            send(last, _NOBLOCK, len(last) < _ZERO_COPY_BYTES)
        except zmq.ZMQError as error:
            log.warning("message not sent %s", fields(frontend=peer.decode("ascii", "replace"), error=error))
            return error.errno or -1
        return 0
