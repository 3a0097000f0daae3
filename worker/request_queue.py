"""Requests that wait for the model, in the order of their arrival. Pure; main thread of the worker.

The queue is bounded; what waits here can still be cancelled, or dropped with the frontend that sent it. Small requests
of Predict may wait as the bytes in which they came: most are run from those (`straight_runs`), and are requests by
themselves, which costs as much as to run a small one, only where somebody asks for one of them.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method

_Key = tuple[int, int]  # frontend, request id


@dataclass(slots=True, eq=False)
class Request:
    """One request as it came. Times are CLOCK_MONOTONIC; not frozen, because one is made for each request.

    `peer` is the frontend's ZeroMQ identity, `frontend` its incarnation.
    """

    peer: bytes
    frontend: int
    request_id: int
    deadline_ns: int
    sent_ns: int
    received_ns: int
    method: Method
    alone: bool
    payload: bytes
    """Bytes, or a memoryview of ZeroMQ's own, or of shared memory, where copying would cost."""

    def expired(self, now_ns: int) -> bool:
        return self.deadline_ns != NO_DEADLINE_NS and now_ns > self.deadline_ns


@dataclass(frozen=True, slots=True)
class Gone:
    """Requests of one frontend that nobody awaits any more: these, or all."""

    frontend: int
    request_ids: frozenset[int] | None = None

    def has(self, request: Request) -> bool:
        return request.frontend == self.frontend and (
            self.request_ids is None or request.request_id in self.request_ids
        )


@dataclass(slots=True, eq=False)
class Unopened:
    """Requests of Predict of one frontend as they came, a message of several (`data`). They wait from `at` on."""

    raw: bytes
    peer: bytes
    frontend: int
    received_ns: int
    at: int = 0

    def first(self) -> tuple[Request, int]:
        """The first of those that wait, and where it ends."""
        size, request_id, deadline_ns, sent_ns, _, alone = data.unpack_one_of_several(self.raw, self.at)
        start = self.at + data.REQUEST_HEAD_BYTES
        end = start + size
        payload = self.raw[start:end]
        request = Request(
            self.peer, self.frontend, request_id, deadline_ns, sent_ns, self.received_ns, Method.PREDICT, alone, payload
        )
        return request, end


class RequestQueue:
    """At most `capacity` requests with `capacity_bytes` of payload in all, first in, first out. A single one fits."""

    def __init__(self, capacity: int, capacity_bytes: int = 1 << 30) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._count_unopened = 0
        # In the order of their arrival: what was opened, what is not, and what came by itself behind that.
        self._opened: OrderedDict[_Key, Request] = OrderedDict()
        self._unopened: deque[Unopened] = deque()
        self._waiting: OrderedDict[_Key, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._opened) + self._count_unopened + len(self._waiting)

    def put(self, request: Request) -> bool:
        """False when the queue is full, or has a request of this id from this frontend already, and that is opened."""
        key = (request.frontend, request.request_id)
        if len(self) >= self._capacity or key in self._waiting or key in self._opened:
            return False
        size_bytes = self._bytes + len(request.payload)
        if size_bytes > self._capacity_bytes and len(self):
            return False
        self._bytes = size_bytes
        self._waiting[key] = request
        return True

    def put_unopened(self, message: Unopened, count: int) -> bool:
        """A message of so many requests (see `data.count_predicts`). False where they must be put one by one, since
        there is no room for all, or because of what came before.
        """
        raw = message.raw
        if self._waiting and not self._unopened:  # nothing is between the two, so these need not be apart
            self._opened.update(self._waiting)
            self._waiting.clear()
        if self._waiting or len(self) + count > self._capacity or self._bytes + len(raw) > self._capacity_bytes:
            return False
        self._unopened.append(message)
        self._bytes += len(raw)
        self._count_unopened += count
        return True

    @property
    def unopened(self) -> Unopened | None:
        """Those that have waited for the longest, if they are not opened."""
        return self._unopened[0] if self._unopened and not self._opened else None

    def took_unopened(self, end: int) -> None:
        """The first of those that have waited for the longest was taken, which ended there."""
        message = self._unopened[0]
        self._bytes -= end - message.at
        self._count_unopened -= 1
        message.at = end
        if end == len(message.raw):
            self._unopened.popleft()

    def take(self) -> Request | None:
        """The one that has waited for the longest."""
        message = self.unopened
        if message is not None:
            request, end = message.first()
            self.took_unopened(end)
            return request
        those = self._opened or self._waiting
        if not those:
            return None
        request = those.popitem(last=False)[1]
        self._bytes -= len(request.payload)
        return request

    def first(self) -> Request | None:
        """The one that `take` would give."""
        message = self.unopened
        if message is not None:
            return message.first()[0]
        return next(iter((self._opened or self._waiting).values()), None)

    def cancel(self, frontend: int, request_id: int) -> bool:
        """Whether it waited here; it will not be executed."""
        self._open_all()
        return self._remove((frontend, request_id))

    def drop_frontend(self, frontend: int) -> int:
        """How many requests of this frontend waited; they will not be executed."""
        self._open_all()
        gone = [key for those in (self._opened, self._waiting) for key in those if key[0] == frontend]
        for key in gone:
            self._remove(key)
        return len(gone)

    def _remove(self, key: _Key) -> bool:
        request = self._opened.pop(key, None) or self._waiting.pop(key, None)
        if request is None:
            return False
        self._bytes -= len(request.payload)
        return True

    def _open_all(self) -> None:
        """So that any of them can be taken out: also where a model is late and very many are cancelled."""
        for message in self._unopened:
            self._bytes -= len(message.raw) - message.at
            while message.at < len(message.raw):
                request, message.at = message.first()
                if self._opened.setdefault((request.frontend, request.request_id), request) is request:
                    self._bytes += len(request.payload)
        self._unopened.clear()
        self._count_unopened = 0
