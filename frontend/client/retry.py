"""When a failed call is made again: where the server says when, and where the user asked for it.

Pure: an operation is a generator that yields `Send` and `Wait` steps; whoever drives it does the I/O, sends the reply
in, or throws the CallError. So the blocking and the asyncio client share every decision. Time is a given clock.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modelpool.supervisor.wire.status import Code

from .errors import CallError, InputError

RETRY_AFTER = "retry-after"
PUSHBACK_MS = "grpc-retry-pushback-ms"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path, the class of its reply, and whether making the call twice does no harm."""

    path: str
    reply: Any
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Make this call and send its reply in; `timeout_s` None means no limit."""

    method: Method
    request: Any = field(repr=False)
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so long, then go on."""

    seconds: float


Steps = Generator[Send | Wait, Any, T]


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an operation has to be over, all its calls and waits together; `at_s` is infinite for no limit."""

    at_s: float
    clock: Callable[[], float] = field(repr=False)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> "Deadline":
        """Raises InputError unless `seconds` is positive; infinity means no limit."""
        if not seconds > 0:
            raise InputError(f"timeout_s: expected a positive number of seconds, got {seconds!r}")
        return cls(clock() + seconds, clock)

    def left_s(self) -> float:
        return self.at_s - self.clock()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retries`: how often an UNAVAILABLE call without a hint is made again, by the user's wish.

    Hints of the server are followed `max_hinted` times per call, if none asks for more than `max_wait_s`. `jitter`
    gives a number in [0, 1).
    """

    retries: int
    jitter: Callable[[], float]
    max_hinted: int = 5
    max_wait_s: float = 60.0
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0

    def wait_s(self, error: CallError, hinted: int, unhinted: int, repeatable: bool) -> float | None:
        """How long to wait before the next attempt, after so many that were hinted and not; None: give up."""
        hint_s = hint(error)
        if hint_s is not None:
            return hint_s if hinted < self.max_hinted and hint_s <= self.max_wait_s else None
        if error.code is not Code.UNAVAILABLE or not repeatable or unhinted >= self.retries:
            return None
        # Half of it is random, so that clients which failed together do not come back together.
        backoff_s = min(self.first_backoff_s * 2.0**unhinted, self.max_backoff_s)
        return backoff_s * (0.5 + self.jitter() / 2)


def hint(error: CallError) -> float | None:
    """Seconds after which the server asks for the next attempt; None: it says nothing; infinite: not again.

    `grpc-retry-pushback-ms` after gRPC's retry design (gRFC A6): a negative or broken value forbids a retry.
    `retry-after` is HTTP's in whole or broken seconds; a broken value, or a date, says nothing.
    """
    if error.code not in {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}:
        return None
    pushback = error.trailing.get(PUSHBACK_MS)
    if pushback is not None:
        milliseconds = _number(pushback)
        return math.inf if milliseconds is None else milliseconds / 1000
    return _number(error.trailing.get(RETRY_AFTER, ""))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def send(method: Method, request: Any, deadline: Deadline, policy: RetryPolicy) -> Steps[Any]:
    """Make one call, again where the policy says so and the deadline leaves time. Raises CallError."""
    hinted = unhinted = 0
    while True:
        left_s = deadline.left_s()
        try:
            return (yield Send(method, request, None if left_s == math.inf else max(left_s, 0.0)))
        except CallError as error:
            wait_s = policy.wait_s(error, hinted, unhinted, method.repeatable)
            if wait_s is None or wait_s >= deadline.left_s():
                raise
            if hint(error) is None:
                unhinted += 1
            else:
                hinted += 1
        yield Wait(wait_s)
