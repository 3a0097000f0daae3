"""The deadlines of all requests in flight, by one timer of the event loop. In the event loop.

Nearly all requests are answered long before their deadline, so nothing is done for one when it comes or goes but to
compare: the timer is for the first deadline of all that came since it was set, whether they are still there or not.
When it goes off, those that are there and came since are put in a heap: each once at most, and few ever.
"""

import asyncio
import heapq
import time
from collections.abc import Callable

from modelpool.supervisor.wire import data

from .callback import guarded
from .in_flight import Pending

_LATE_S = 0.001  # loops round to milliseconds; a timer that is early would have to be set again at once
_NEVER_NS = 1 << 64
# So many of the heap may be gone, beside as many as are in flight; more are cleared away.
_MOST_GONE = 64


class Deadlines:
    """Calls `expired` with each of `requests` whose deadline has passed, some milliseconds late at most, never early.

    `requests`: those in flight by their ids, which ascend as they come. It is for `expired` to have one removed.
    """

    def __init__(self, requests: dict[int, Pending], expired: Callable[[Pending], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests = requests
        self._expired = expired
        self._heap: list[tuple[int, int]] = []
        """Deadline and id."""
        self._newest = 0
        """Of those that were put in the heap."""
        self._timer: asyncio.TimerHandle | None = None
        self.first_ns = _NEVER_NS
        """What the timer is for: a request with an earlier deadline is to be expected."""

    def expect(self, deadline_ns: int) -> None:
        """A request has come with a deadline before `first_ns`."""
        if self._timer is not None:
            self._timer.cancel()
        self.first_ns = deadline_ns
        remaining_s = (deadline_ns - time.monotonic_ns()) / 1e9
        self._timer = self._loop.call_later(max(0.0, remaining_s) + _LATE_S, self._look)

    @guarded
    def _look(self) -> None:
        self._timer, self.first_ns = None, _NEVER_NS
        self._take_in()
        heap, requests, now_ns = self._heap, self._requests, time.monotonic_ns()
        while heap:
            deadline_ns, request_id = heap[0]
            pending = requests.get(request_id)
            if pending is not None and deadline_ns > now_ns:
                break
            heapq.heappop(heap)
            if pending is not None:
                self._expired(pending)
        if heap and heap[0][0] < self.first_ns:  # else it was set for one that came while another expired
            self.expect(heap[0][0])

    def _take_in(self) -> None:
        """Put those that came since the last time in the heap."""
        heap, requests, newest = self._heap, self._requests, self._newest
        for request_id in reversed(requests):
            if request_id <= newest:
                break
            deadline_ns = requests[request_id].deadline_ns
            if deadline_ns != data.NO_DEADLINE_NS:
                heapq.heappush(heap, (deadline_ns, request_id))
        self._newest = next(reversed(requests), newest)
        if len(heap) > 2 * len(requests) + _MOST_GONE:
            heap[:] = [each for each in heap if each[1] in requests]
            heapq.heapify(heap)
