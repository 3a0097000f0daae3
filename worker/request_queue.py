"""Requests that wait for the model, in the order of their arrival. Pure; main thread of the worker.

The queue is bounded; what waits here can still be cancelled, or dropped with the frontend that sent it. Small requests
of Predict may wait as the bytes in which they came: most are run from those (`straight_runs`), and are requests by
themselves, which costs as much as to run a small one, only where somebody asks for one of them.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
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

    def rest(self) -> Iterator[Request]:
        """All that wait; then none of them does any more."""
        while self.at < len(self.raw):
            request, self.at = self.first()
            yield request


_Singles = OrderedDict[_Key, Request]


class RequestQueue:
    """At most `capacity` requests with `capacity_bytes` of payload in all, first in, first out. A single one fits."""

    def __init__(self, capacity: int, capacity_bytes: int = 1 << 30) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._count_unopened = 0
        # In the order of their arrival: messages that are not opened, and between them what came, or was made, single.
        self._line: deque[Unopened | _Singles] = deque()
        self._keys: set[_Key] = set()
        """Of all that are single."""

    def __len__(self) -> int:
        return len(self._keys) + self._count_unopened

    def put(self, request: Request) -> bool:
        """False when the queue is full, or has a request of this id from this frontend already, and that is opened."""
        key = (request.frontend, request.request_id)
        count = len(self)
        if count >= self._capacity or key in self._keys:
            return False
        size_bytes = self._bytes + len(request.payload)
        if size_bytes > self._capacity_bytes and count:
            return False
        self._bytes = size_bytes
        self._keys.add(key)
        self._last_singles()[key] = request
        return True

    def _last_singles(self) -> _Singles:
        line = self._line
        last = line[-1] if line else None
        if last is None or isinstance(last, Unopened):
            last = OrderedDict()
            line.append(last)
        return last

    def put_unopened(self, message: Unopened, count: int) -> bool:
        """A message of so many requests (see `data.count_predicts`). False where they must be put one by one, since
        there is no room for all.
        """
        raw = message.raw
        if len(self) + count > self._capacity or self._bytes + len(raw) > self._capacity_bytes:
            return False
        self._line.append(message)
        self._bytes += len(raw)
        self._count_unopened += count
        return True

    @property
    def unopened(self) -> Unopened | None:
        """Those that have waited for the longest, if they are not opened."""
        first = self._line[0] if self._line else None
        return first if isinstance(first, Unopened) else None

    def took_unopened(self, end: int) -> None:
        """The first of those that have waited for the longest was taken, which ended there."""
        message = self.unopened
        assert message is not None
        self._bytes -= end - message.at
        self._count_unopened -= 1
        message.at = end
        if end == len(message.raw):
            self._line.popleft()

    def take(self) -> Request | None:
        """The one that has waited for the longest."""
        if not self._line:
            return None
        first = self._line[0]
        if isinstance(first, Unopened):
            request, end = first.first()
            self.took_unopened(end)
            return request
        key, request = first.popitem(last=False)
        self._keys.remove(key)
        self._bytes -= len(request.payload)
        if not first:
            self._line.popleft()
        return request

    def first(self) -> Request | None:
        """The one that `take` would give."""
        if not self._line:
            return None
        first = self._line[0]
        return first.first()[0] if isinstance(first, Unopened) else next(iter(first.values()))

    def cancel(self, frontend: int, request_id: int) -> bool:
        """Whether it waited here; it will not be executed."""
        singles = self._all_single()
        return self._remove(singles, (frontend, request_id))

    def drop_frontend(self, frontend: int) -> int:
        """How many requests of this frontend waited; they will not be executed."""
        singles = self._all_single()
        gone = [key for key in singles if key[0] == frontend]
        for key in gone:
            self._remove(singles, key)
        return len(gone)

    def _remove(self, singles: _Singles, key: _Key) -> bool:
        request = singles.pop(key, None)
        if request is None:
            return False
        self._keys.remove(key)
        self._bytes -= len(request.payload)
        if not singles:
            self._line.clear()
        return True

    def _all_single(self) -> _Singles:
        """All that wait, so that any can be taken out. What is single already, and stands at the head, is not touched:
        where a model is late, very many are cancelled, again and again.
        """
        line = self._line
        head = line[0] if line else None
        if head is None or isinstance(head, Unopened):
            head = OrderedDict()
        else:
            line.popleft()
        while line:
            each = line.popleft()
            if isinstance(each, Unopened):
                self._bytes -= len(each.raw) - each.at
                for request in each.rest():
                    self._add_unless_there(head, request)
            else:
                for request in each.values():
                    self._bytes -= len(request.payload)
                    self._add_unless_there(head, request)
        if head:
            line.append(head)
        self._count_unopened = 0
        return head

    def _add_unless_there(self, singles: _Singles, request: Request) -> None:
        key = (request.frontend, request.request_id)
        if key not in singles:
            singles[key] = request
            self._keys.add(key)
            self._bytes += len(request.payload)
