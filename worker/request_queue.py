"""Requests that wait for the model, in the order of their arrival. Pure; main thread of the worker.

The queue is bounded; what waits here can still be cancelled, or dropped with the frontend that sent it.
"""

from collections import OrderedDict
from dataclasses import dataclass

from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method


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


class RequestQueue:
    """At most `capacity` requests with `capacity_bytes` of payload in all, first in, first out. A single one fits."""

    def __init__(self, capacity: int, capacity_bytes: int = 1 << 30) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._waiting: OrderedDict[tuple[int, int], Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> bool:
        """False when the queue is full, or has a request of this id from this frontend already."""
        key = (request.frontend, request.request_id)
        if len(self._waiting) >= self._capacity or key in self._waiting:
            return False
        size_bytes = self._bytes + len(request.payload)
        if size_bytes > self._capacity_bytes and self._waiting:
            return False
        self._bytes = size_bytes
        self._waiting[key] = request
        return True

    def take(self) -> Request | None:
        """The one that has waited for the longest."""
        if not self._waiting:
            return None
        request = self._waiting.popitem(last=False)[1]
        self._bytes -= len(request.payload)
        return request

    def first(self) -> Request | None:
        """The one that `take` would give."""
        return next(iter(self._waiting.values())) if self._waiting else None

    def cancel(self, frontend: int, request_id: int) -> bool:
        """Whether it waited here; it will not be executed."""
        return self._remove((frontend, request_id))

    def _remove(self, key: tuple[int, int]) -> bool:
        request = self._waiting.pop(key, None)
        if request is None:
            return False
        self._bytes -= len(request.payload)
        return True

    def drop_frontend(self, frontend: int) -> int:
        """How many requests of this frontend waited; they will not be executed."""
        gone = [key for key in self._waiting if key[0] == frontend]
        for key in gone:
            self._remove(key)
        return len(gone)
