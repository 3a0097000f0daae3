"""Requests whose bodies are still on their way: how many and how much there may be, and who makes room. Event loop.

A request has a place here until its body is whole; from then on it is the core's. Slow senders are let be as long as
there is room. When there is none, a newcomer takes the place of all that are too slow: of which less has come, in the
time since they began, than a bad connection brings. So whoever holds a place without using it holds it for little
more than `_GRACE_S` while others want it. A newcomer that finds nobody slow is refused, and told when to come again.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from modelpool.supervisor.wire.frontend_spec import ARRIVING_BYTES, ARRIVING_REQUESTS
from modelpool.supervisor.wire.status import Overloaded

from .model_queue import FULL, UNKNOWN_HINT_MS

# Up to this size a body takes nothing of the budget: that many are small beside it, whatever there is of them.
_SMALL_BYTES = 64 * 1024
# A sender is too slow that is behind this rate by more than the grace.
_GRACE_S = 5.0
_BYTES_PER_S = 64 * 1024
# All places are looked through this often at most, however many newcomers there are.
_LOOK_S = 0.1
# Each that gives way is a task that wakes and answers in the next turn of the loop, before anybody else's call.
_MOST_AT_ONCE = 200


class Intake:
    """The places of one API. `most` requests; `budget_bytes` of what has come of those that are not small.

    One that is bigger than the budget passes while it is the only one that is not small.
    """

    def __init__(
        self,
        most: int = ARRIVING_REQUESTS,
        budget_bytes: int = ARRIVING_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._places: set[Place] = set()
        self._big: set[Place] = set()
        self._look_at_s = 0.0
        self.held_bytes = 0
        """What has come of those that are not small."""

    @property
    def requests(self) -> int:
        """How many have a place."""
        return len(self._places)

    def place(self) -> "Place":
        """For the request of the current task, as a context around the reading of its body. Raises Overloaded.

        Within it the task may be cancelled to make room; the context then raises Overloaded.
        """
        if len(self._places) >= self._most and not self._make_room(self._places):
            raise Overloaded(f"{FULL}: {len(self._places)} requests are still on their way", UNKNOWN_HINT_MS)
        return Place(self, self._clock())

    def enter(self, place: "Place") -> None:
        self._places.add(place)

    def leave(self, place: "Place") -> None:
        """Idempotent."""
        self._places.discard(place)
        if place in self._big:
            self._big.remove(place)
            self.held_bytes -= place.size_bytes
        place.size_bytes = 0

    def add(self, place: "Place", size_bytes: int) -> None:
        """So much more has come. Raises Overloaded when that is more than there may be."""
        place.size_bytes += size_bytes
        if place.size_bytes <= _SMALL_BYTES:
            return
        if place in self._big:
            self.held_bytes += size_bytes
        else:
            self._big.add(place)
            self.held_bytes += place.size_bytes
        if self._fits():
            return
        self._make_room(self._big, but=place)
        if not self._fits():
            raise Overloaded(
                f"{FULL}: {self.held_bytes} bytes have come of requests that are still on their way, more than "
                f"{self._budget_bytes}",
                UNKNOWN_HINT_MS,
            )

    def _fits(self) -> bool:
        return self.held_bytes <= self._budget_bytes or len(self._big) == 1

    def _make_room(self, places: "Iterable[Place]", but: "Place | None" = None) -> bool:
        """Have those of `places` that are too slow give way, the slowest first; False when there are none."""
        now_s = self._clock()
        if now_s < self._look_at_s:
            return False
        slow = [place for place in places if place.due_s() < now_s and place is not but]
        slow = heapq.nsmallest(_MOST_AT_ONCE, slow, key=Place.due_s)
        for place in slow:
            self._places.discard(place)
            place.give_way(now_s)
        next_s = min((place.due_s() for place in self._places), default=now_s)
        self._look_at_s = max(now_s + _LOOK_S, min(next_s, now_s + _GRACE_S))
        return bool(slow)


class Place:
    """One request's. `size_bytes` of its body are held."""

    __slots__ = ("_began_s", "_failure", "_intake", "_task", "size_bytes")

    def __init__(self, intake: Intake, began_s: float) -> None:
        self._intake = intake
        self._began_s = began_s
        self._failure: Overloaded | None = None
        self._task = asyncio.current_task()
        self.size_bytes = 0

    def due_s(self) -> float:
        """When it will be too slow unless more comes."""
        return self._began_s + _GRACE_S + self.size_bytes / _BYTES_PER_S

    def came(self, size_bytes: int) -> None:
        """So much more of the body is kept. Raises Overloaded."""
        self._intake.add(self, size_bytes)

    def give_way(self, now_s: float) -> None:
        """Others want its place more."""
        text = f"{self.size_bytes} bytes in {now_s - self._began_s:.0f} s"
        self._failure = Overloaded(f"{FULL}: the request came too slowly, {text}, and others wait", UNKNOWN_HINT_MS)
        self._intake.leave(self)
        assert self._task is not None
        self._task.cancel()

    def __enter__(self) -> Self:
        self._intake.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._intake.leave(self)
        if self._failure is None:
            return
        assert self._task is not None
        self._task.uncancel()
        raise self._failure from None
