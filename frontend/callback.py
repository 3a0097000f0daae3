"""Callbacks of our own in the event loop: what nobody foresaw in one ends the process, as it does in a task of ours.

The loop itself would log and go on, with a request lost or a timer never set again. Servers report to the same handler
of the loop what is harmless, such as a client that went away; so our failures carry a class of their own, by which
`Session` tells them apart.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

Args = ParamSpec("Args")


class CallbackFailed(Exception):
    """A bug in one of our callbacks; its cause is the exception that was raised."""


def guarded(callback: Callable[Args, None]) -> Callable[Args, None]:
    """A function that the loop calls (reader, timer): raises CallbackFailed for whatever `callback` raises."""

    @wraps(callback)
    def call(*args: Args.args, **kwargs: Args.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception as error:
            raise CallbackFailed(f"{callback.__qualname__}: {error}") from error

    return call
