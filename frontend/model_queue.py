"""The room that one model has at this frontend, how much of it is taken, and when there will be more. Pure.

It counts whatever was accepted and is not answered: sent to a worker, or held until there is one. Knows no request.
"""

import random
from collections.abc import Callable

from modelpool.supervisor.wire.route_table import RequestRules
from modelpool.supervisor.wire.status import Overloaded

from .retry_budget import RetryBudget
from .throughput import Throughput

FULL = "The batch scheduling queue to which this task was submitted is full"
# Bounds of the hint when to ask again, and what is said while nothing is known.
MIN_HINT_MS, MAX_HINT_MS, UNKNOWN_HINT_MS = 10, 30_000, 1_000


class ModelQueue:
    """One model's account. `budget_bytes` of payload may be in flight; a bigger request passes alone.

    `chance` gives a number in [0, 1).
    """

    __slots__ = (
        *("_budget_bytes", "_chance", "in_flight", "in_flight_bytes", "limit", "name", "retries", "rules"),
        "throughput",
    )

    def __init__(self, name: str, budget_bytes: int, chance: Callable[[], float] = random.random) -> None:
        self.name = name
        self._budget_bytes = budget_bytes
        self._chance = chance
        self.rules = RequestRules()
        self.limit = self.rules.max_queued_requests
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.throughput = Throughput()
        self.retries = RetryBudget()

    def configure(self, rules: RequestRules, workers: int, frontends: int) -> None:
        """Have room for this frontend's part of what may wait at so many workers; while there is none, at one."""
        self.rules = rules
        self.limit = -(-rules.max_queued_requests * max(1, workers) // frontends)

    def require_room(self, size_bytes: int, all_bytes: int, all_budget_bytes: int, now_ns: int) -> None:
        """Raises Overloaded when one more request of this size is more than may wait.

        `all_bytes` of all models' requests are in flight, of `all_budget_bytes` that may be.
        """
        if self.in_flight >= self.limit:
            raise self.full(f"{self.in_flight} requests wait", now_ns)
        in_flight_bytes = self.in_flight_bytes
        if in_flight_bytes + size_bytes > self._budget_bytes and in_flight_bytes:
            raise self._over(size_bytes, in_flight_bytes, self._budget_bytes, "the model", now_ns)
        if all_bytes + size_bytes > all_budget_bytes and all_bytes:
            raise self._over(size_bytes, all_bytes, all_budget_bytes, "all models together", now_ns)

    def _over(self, size_bytes: int, in_flight_bytes: int, budget_bytes: int, whose: str, now_ns: int) -> Overloaded:
        reason = (
            f"{size_bytes} bytes more than the {in_flight_bytes} bytes in flight exceed the budget of "
            f"{budget_bytes} bytes of {whose}"
        )
        return self.full(reason, now_ns)

    def full(self, reason: str, now_ns: int) -> Overloaded:
        """The refusal of a request, in TF Serving's words and with a hint when to come again."""
        return Overloaded(f"{FULL}: model {self.name}: {reason}", self._hint_ms(now_ns))

    def enter(self, size_bytes: int, now_ns: int) -> None:
        """A request was accepted."""
        self.in_flight += 1
        self.in_flight_bytes += size_bytes
        self.throughput.came += 1
        if now_ns >= self.throughput.next_mark_ns:
            self.throughput.mark(now_ns)

    def leave(self, size_bytes: int) -> None:
        """It is answered, or nobody waits for it any more."""
        self.in_flight -= 1
        self.in_flight_bytes -= size_bytes

    def _hint_ms(self, now_ns: int) -> int:
        """In about what time half of what waits now is answered, spread so that not all come back at once."""
        rate = self.throughput.rate(now_ns)
        if not rate:
            return UNKNOWN_HINT_MS
        half_ms = self.in_flight / rate / 2 * 1000
        return int(min(MAX_HINT_MS, max(MIN_HINT_MS, half_ms * (0.5 + self._chance()))))
