"""How many suspects of one model may be tried once more: a share of its requests, and a reserve. Pure.

After Finagle's RetryBudget: a crash that hits much of the traffic must not be answered with as much again. What had not
begun to execute is sent again without counting (gRFC A6: transparent retries).
"""

from collections import deque

from .throughput import SPAN_NS

SHARE = 10
"""One retry for so many requests of the window."""
RESERVE = 100
"""Retries in a window that need no requests."""


class RetryBudget:
    """The retries of one model within the last SPAN_NS. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._spent: deque[tuple[int, int]] = deque()

    def grant(self, wanted: int, came: int, now_ns: int) -> int:
        """How many of the suspects of one death are tried, where `came` requests came within the window.

        The first death of a window gets all that it asks for, so that one whole batch can be taken apart.
        """
        while self._spent and self._spent[0][0] <= now_ns - SPAN_NS:
            self._spent.popleft()
        spent = sum(count for _, count in self._spent)
        granted = min(wanted, max(0, RESERVE + came // SHARE - spent)) if spent else wanted
        if granted:
            self._spent.append((now_ns, granted))
        return granted
