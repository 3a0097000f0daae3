"""The deadlines of all requests in flight, by one timer of the event loop. In the event loop.

A timer for each request would cost more than the rest of its bookkeeping, and nearly all are cancelled long before they
are due. So requests are put in buckets of about a millisecond, and the loop's timer is for the first bucket.
"""

import asyncio
import time
from collections.abc import Callable

from .callback import guarded
from .in_flight import Pending

_BUCKET_BITS = 20  # 2**20 ns
_LATE_S = 0.001  # loops round to milliseconds; a timer that is early would have to be set again at once
_NEVER = 1 << 64


class Deadlines:
    """Calls `expired` with each request whose deadline has passed, some milliseconds late at most and never early.

    It is for `expired` to have the request removed.
    """

    def __init__(self, expired: Callable[[Pending], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._expired = expired
        self._buckets: dict[int, set[Pending]] = {}
        self._first = _NEVER
        """The bucket that the timer is for; it may be gone."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, pending: Pending) -> None:
        """Its deadline counts from now on; it must have one."""
        bucket = pending.deadline_ns >> _BUCKET_BITS
        waiting = self._buckets.get(bucket)
        if waiting is not None:
            waiting.add(pending)
            return
        self._buckets[bucket] = {pending}
        if bucket < self._first:
            self._set_timer(bucket)

    def remove(self, pending: Pending) -> None:
        """Its deadline counts no more. Without effect for one that has none."""
        bucket = pending.deadline_ns >> _BUCKET_BITS
        waiting = self._buckets.get(bucket)
        if waiting is not None:
            waiting.discard(pending)
            if not waiting:
                del self._buckets[bucket]

    def _set_timer(self, bucket: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._first = bucket
        remaining_s = (((bucket + 1) << _BUCKET_BITS) - time.monotonic_ns()) / 1e9
        self._timer = self._loop.call_later(max(0.0, remaining_s) + _LATE_S, self._look)

    @guarded
    def _look(self) -> None:
        self._timer, self._first = None, _NEVER
        now = time.monotonic_ns() >> _BUCKET_BITS
        for bucket in sorted(bucket for bucket in self._buckets if bucket < now):
            waiting = self._buckets.get(bucket, set())
            while waiting:
                self._expired(waiting.pop())
            self._buckets.pop(bucket, None)
        if self._buckets:
            self._set_timer(min(self._buckets))
