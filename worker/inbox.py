"""What comes to a worker by its socket: requests for the queue or as tables, and what becomes of those in between.

The socket is read in bursts, by the session's main thread, which owns it. Small requests of Predict are kept to the end
of a look, or until another comes: those of a frontend that came one behind the other go on together, as one table if
they are alike (`request_table`), or unopened (`request_queue`), else each by itself. Cancels are kept as well, for they
are looked for in all that waits.
"""

import logging
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import zmq

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import InvalidArgument, PoolError, Unavailable

from . import request_table
from .jobs import Task, failed
from .request_queue import Gone, Request, RequestQueue, Unopened
from .shared_payloads import SharedPayloads
from .work import Work

log = logging.getLogger(__name__)

# Looking up an enum's member takes 0.2 us in Python 3.11, and half a dozen would be looked up for each request.
_PREDICT, _CANCEL, _RETURN, _SEVERAL = Method.PREDICT, Method.CANCEL, Method.RETURN, Method.SEVERAL
# Plain integers: arithmetic on pyzmq's enums costs more than the calls they are for.
_NOBLOCK, _EVENTS, _POLLIN = int(zmq.NOBLOCK), int(zmq.EVENTS), int(zmq.POLLIN)
# From here on tensors are referred to instead of being copied; below, copying is cheaper.
_ZERO_COPY_BYTES = 64 * 1024
_DEAD_FRONTENDS = 64
_FULL = "The batch scheduling queue to which this task was submitted is full"


class _Gathered:
    """Small requests of one frontend that came one behind the other, in one look."""

    __slots__ = ("count", "frontend", "messages", "peer")

    def __init__(self, peer: bytes, frontend: Incarnation) -> None:
        self.peer = peer
        self.frontend = frontend
        self.messages: list[tuple[bytes | None, bytes]] = []
        """Header and payload of each message; None for one of several requests, which have their own."""
        self.count = 0
        """How many requests; about, where they are for a table."""

    @property
    def is_single(self) -> bool:
        return len(self.messages) == 1 and self.messages[0][0] is not None

    def together(self) -> bytes:
        """As a message of several requests."""
        pieces = [each if head is None else data.one_of_several(head, each) for head, each in self.messages]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Inbox:
    """Reads `socket` into `queue` and `work`; `answered` is told of what is refused at once."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        queue: RequestQueue,
        work: Work,
        shared: SharedPayloads,
        answered: Callable[[Task], None],
        *,
        goes_straight: Callable[[int], bool] = lambda size_bytes: False,
    ) -> None:
        """`goes_straight`: whether requests of Predict with payloads of so many bytes are likely to be run so now."""
        self.gone: deque[Incarnation] = deque(maxlen=_DEAD_FRONTENDS)
        """Frontends: what a dead one had sent may be read long after its death."""
        self._socket = socket
        self._queue = queue
        self._work = work
        self._shared = shared
        self._answered = answered
        self._frontends: dict[bytes, Incarnation] = {}
        self._dropped: SimpleQueue[Incarnation] = SimpleQueue()
        self._goes_straight = goes_straight
        self._gathered: list[_Gathered] = []
        self._cancelled: dict[Incarnation, list[int]] = {}

    def drop_frontend(self, incarnation: Incarnation) -> None:
        """A frontend is gone: what it has asked and is not executed yet need not be. Any thread."""
        self._dropped.put(incarnation)

    @property
    def has_dropped(self) -> bool:
        """Whether a frontend has gone since the last look."""
        return not self._dropped.empty()

    def look(self, now_ns: int, room: int) -> None:
        """Read what has come; not more than about `room` requests, so that a flood keeps nobody from being served."""
        if not self._dropped.empty():
            self._drop_frontends()
        receive, ask = self._socket.recv, self._socket.getsockopt
        # Asked before each: to find out by an exception that there is nothing costs twice as much.
        while room > 0 and int(ask(_EVENTS)) & _POLLIN:
            peer = receive(_NOBLOCK)
            head: Any = receive(_NOBLOCK, copy=False)
            if not head.more:
                log.warning("request refused %s", fields(error="expected 3 frames, got 2"))
                room -= 1
                continue
            frame: Any = receive(_NOBLOCK, copy=False)
            if frame.more:
                self._take_referred(peer, head.bytes, frame, now_ns)
                room -= 1
            else:
                room -= self._take_message(peer, head.bytes, frame, now_ns)
        if self._gathered:
            self._put_gathered(now_ns)
        if self._cancelled:
            self._forget_cancelled()

    def _take_referred(self, peer: bytes, head: bytes, frame: Any, now_ns: int) -> None:
        """A message whose payload is in shared memory; of any other the rest is skipped."""
        rest: list[Any] = []
        while not rest or rest[-1].more:
            rest.append(self._socket.recv(_NOBLOCK, copy=False))
        if len(frame) or len(rest) > 1:
            log.warning("request refused %s", fields(error="expected 3 frames, got more"))
            return
        self._take_message(peer, head, frame, now_ns, rest[0].bytes)

    def _take_message(self, peer: bytes, head: bytes, frame: Any, now_ns: int, reference: bytes = b"") -> int:
        """One request, or several: how many, of which a bad one counts as well."""
        try:
            header = data.request_fields(head)
            frontend = self._frontends.get(peer) or self._meet(peer)
            several = header[3] is _SEVERAL
            count = 0
            if several or (header[3] is _PREDICT and len(frame) <= data.SMALL_BYTES and not reference):
                count = self._count_to_gather(frame, several=several)
            requests = data.unpack_requests(frame.bytes) if several and not count else ()
        except InvalidArgument as error:
            log.warning("request refused %s", fields(error=error.message))
            return 1
        if frontend in self.gone:
            return 1
        if count:
            return self._gather(peer, frontend, None if several else head, frame.bytes, count)
        if several:
            for each, payload in requests:
                self._take(peer, frontend, each, payload, now_ns)
            return len(requests) or 1
        if reference:
            try:
                frame = self._shared.request(peer, frontend, header[0], reference)
            except PoolError as error:
                self._refuse_referred(peer, frontend, header, now_ns, error)
                return 1
        refers = header[3] is _PREDICT and len(frame) >= _ZERO_COPY_BYTES
        self._take(peer, frontend, header, frame.buffer if refers else frame.bytes, now_ns)
        return 1

    def _count_to_gather(self, frame: Any, *, several: bool) -> int:
        """About how many requests a message has, if they are best left together as they came; else 0."""
        if self._work.tables is not None:  # which are compared byte by byte, with those who cannot be there
            return request_table.count_of(frame.bytes) if several else 1
        if not several:
            return int(self._goes_straight(len(frame)))
        raw = frame.bytes
        return data.count_predicts(raw) if self._goes_straight(request_table.first_bytes(raw)) else 0

    def _gather(self, peer: bytes, frontend: Incarnation, head: bytes | None, payload: bytes, count: int) -> int:
        """Keep a message of so many requests until the end of the look."""
        if not self._gathered or self._gathered[-1].peer != peer:
            self._gathered.append(_Gathered(peer, frontend))
        gathered = self._gathered[-1]
        gathered.messages.append((head, payload))
        gathered.count += count
        return count

    def _put_gathered(self, now_ns: int) -> None:
        """What was gathered so far is to wait for the model, in its order."""
        gathered, self._gathered = self._gathered, []
        # One that nothing is beside costs less by itself.
        alone = len(gathered) == 1 and gathered[0].is_single and not self._work.tables
        for those in gathered:
            if not self._put_together(those, now_ns, alone=alone):
                for head, payload in those.messages:
                    self._put_message(those, head, payload, now_ns)

    def _put_together(self, those: _Gathered, now_ns: int, *, alone: bool) -> bool:
        """Whether all of them could be taken as they are. What waits in the queue came earlier."""
        work, queue = self._work, self._queue
        if work.tables is None or (alone and self._goes_straight(len(those.messages[0][1]))):
            return queue.put_unopened(Unopened(those.together(), those.peer, those.frontend, now_ns), those.count)
        return not (alone or len(queue)) and work.put_table(those.together(), those.peer, those.frontend, now_ns)

    def _put_message(self, those: _Gathered, head: bytes | None, payload: bytes, now_ns: int) -> None:
        try:
            requests = [(data.request_fields(head), payload)] if head else data.unpack_requests(payload)
        except InvalidArgument as error:
            log.warning("request refused %s", fields(error=error.message))
            return
        for header, each in requests:
            self._take(those.peer, those.frontend, header, each, now_ns)

    def _forget_cancelled(self) -> None:
        """Those that were not found in the queue when their cancels came: they may have been gathered, or be with the
        work. All at once, for a model that is late has many.
        """
        cancelled, self._cancelled = self._cancelled, {}
        for frontend, request_ids in cancelled.items():
            left = frozenset(each for each in request_ids if not self._queue.cancel(frontend, each))
            if left:
                self._work.forget(Gone(frontend, left))

    def _refuse_referred(
        self, peer: bytes, frontend: Incarnation, header: data.RequestFields, now_ns: int, error: PoolError
    ) -> None:
        """Its payload is not where it should be."""
        log.error("request refused %s", fields(frontend=frontend, request=header[0], error=error.message))
        self._shared.refused(peer, header[0])
        request_id, deadline_ns, sent_ns, method, alone = header
        request = Request(peer, frontend, request_id, deadline_ns, sent_ns, now_ns, method, alone, b"")
        self._answered(failed(request, error.status))

    def _take(self, peer: bytes, frontend: Incarnation, header: data.RequestFields, payload: Any, now_ns: int) -> None:
        request_id, deadline_ns, sent_ns, method, alone = header
        if method is _CANCEL:
            if not self._queue.cancel(frontend, request_id):
                self._cancelled.setdefault(frontend, []).append(request_id)
            return
        if method is _RETURN:
            self._shared.returned(frontend, request_id)
            return
        if self._gathered:  # what came earlier
            self._put_gathered(now_ns)
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
            self.gone.append(gone)
            count = self._queue.drop_frontend(gone)
            self._work.forget(Gone(gone))
            self._frontends = {peer: known for peer, known in self._frontends.items() if known != gone}
            self._shared.drop_frontend(gone)
            log.info("dropped the requests of a dead frontend %s", fields(frontend=gone, requests=count))
