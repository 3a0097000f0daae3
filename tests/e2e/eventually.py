"""Waiting for a fact instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def eventually(predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """What `predicate` returns as soon as that is true. Raises AssertionError with the last value after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}; last value {value!r}")
        time.sleep(POLL_S)
