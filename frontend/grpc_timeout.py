"""Until when a gRPC call may last: its `grpc-timeout`, as a duration, as what is left of it, and as an end of its task.

The header's format: github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.status import DeadlineExceeded

_UNITS_NS = {
    b"H": 3600 * 10**9,
    b"M": 60 * 10**9,
    b"S": 10**9,
    b"m": 10**6,
    b"u": 10**3,
    b"n": 1,
}
_MAX_DIGITS = 8


def remaining_s(deadline_ns: int) -> float | None:
    """The time until then, less than 0 when it has passed; None for no deadline."""
    return None if deadline_ns == data.NO_DEADLINE_NS else (deadline_ns - time.monotonic_ns()) / 1e9


def too_late() -> DeadlineExceeded:
    """For a call whose message has not come in time."""
    return DeadlineExceeded("Deadline exceeded before the whole message had come")


def timeout_ns(text: bytes) -> int | None:
    """The duration in a `grpc-timeout`; None for what is none, or longer than the protocol has it."""
    return _timeout_ns(text) if len(text) <= _MAX_DIGITS + 1 else None


@lru_cache(maxsize=1024)
def _timeout_ns(text: bytes) -> int | None:
    digits, unit = text[:-1], _UNITS_NS.get(text[-1:])
    return int(digits) * unit if unit is not None and digits.isdigit() else None


@asynccontextmanager
async def before(deadline_ns: int) -> AsyncIterator[None]:
    """The current task is cancelled then, and raises DeadlineExceeded. Any other TimeoutError is not of this one."""
    try:
        async with asyncio.timeout(remaining_s(deadline_ns)) as timeout:
            yield
    except TimeoutError as late:
        if not timeout.expired():
            raise
        raise DeadlineExceeded("Deadline exceeded") from late
