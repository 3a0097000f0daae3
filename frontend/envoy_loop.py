"""One event loop for all of Envoy's listeners: pyvoy makes a loop and a thread for each, and is given guests of ours.

pyvoy has a thread for each listener, in which it takes what Envoy has for Python, and which would hand all of it to a
loop by `call_soon_threadsafe`. A guest does at once, in that thread, what pyvoy wants to have done: an application is
started there, and gets the body of its request there. What needs the core's loop is handed to it: tasks, futures that a
task waits for, and calls that are `Begun`. So the applications of all listeners run beside the core and without locks,
and a call that needs no task wakes the loop once instead of twice. The thread that pyvoy made for the guest's loop only
waits for its end.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from .callback import CallbackFailed


class Begun:
    """What an application may return in place of a coroutine: a call that goes on by itself, without a task."""

    __slots__ = ()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """pyvoy would hear of exceptions here; there are none."""


class Receiver(Protocol):
    """Who takes an event of ASGI in pyvoy's thread."""

    def received(self, event: Any) -> None: ...


class Delivery(asyncio.Future[Any]):
    """What pyvoy's `receive` and `send` return: pyvoy sets it in its own thread, also when nobody waits any more.

    Where `receiver` is set, in that thread by whom it is for, that one is given the result there. Else it is a future
    of the core's loop.
    """

    __slots__ = ("receiver",)
    receiver: Receiver

    def set_result(self, result: Any) -> None:
        try:
            receiver = self.receiver
        except AttributeError:
            self.get_loop().call_soon_threadsafe(self._set, super().set_result, result)
        else:
            receiver.received(result)

    def set_exception(self, exception: type | BaseException) -> None:
        self.get_loop().call_soon_threadsafe(self._set, super().set_exception, exception)

    def _set(self, setter: Callable[[Any], None], value: Any) -> None:
        if not self.done():
            setter(value)


class GuestLoop(asyncio.AbstractEventLoop):
    """What pyvoy takes for a loop of its own. In pyvoy's thread of a listener; `create_future` also in the host's."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self.create_future = partial(Delivery, loop=host)  # type: ignore[method-assign]
        self._ended = threading.Event()

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Call it now. What it raises ends pyvoy's thread, and with it the listener; so it ends the process, too."""
        try:
            callback(*args)
        except Exception as error:
            self._host.call_soon_threadsafe(_fail, error)
            raise

    def create_task(self, work: Any) -> Any:  # type: ignore[override]
        return work if isinstance(work, Begun) else _Handed(self._host, work)

    def run_forever(self) -> None:
        self._ended.wait()

    def stop(self) -> None:
        self._ended.set()


class _Handed:
    """A coroutine that becomes a task of the host, once pyvoy has said whom to tell of its end."""

    __slots__ = ("_host", "_work")

    def __init__(self, host: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self._host = host
        self._work = work

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._host.call_soon_threadsafe(self._start, callback)

    def _start(self, callback: Callable[[Any], None]) -> None:
        self._host.create_task(self._work).add_done_callback(callback)


def _fail(error: Exception) -> None:
    raise CallbackFailed(f"pyvoy: {error}") from error


class GuestPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes guests of `host` for whoever asks for a new loop."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._host = host

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return GuestLoop(self._host)  # type: ignore[abstract]
