"""One event loop for all of Envoy's listeners: pyvoy makes a loop and a thread for each, and is given guests of ours.

pyvoy schedules everything that it does in Python by four methods of the loop that asyncio makes for it. A guest passes
them on to the loop of the core's thread, so that the applications of all listeners run there, beside the core and
without locks; the thread that pyvoy made for the guest only waits for its end.
"""

import asyncio
import threading
from functools import partial
from typing import Any


class _Forgiving(asyncio.Future[Any]):
    """A future of pyvoy's, which sets it also when who waited has given up."""

    def set_result(self, result: Any) -> None:
        if not self.done():
            super().set_result(result)

    def set_exception(self, exception: type | BaseException) -> None:
        if not self.done():
            super().set_exception(exception)


class GuestLoop(asyncio.AbstractEventLoop):
    """What pyvoy takes for a loop of its own."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        # The host's own methods: these are called several times for each request.
        self.call_soon_threadsafe = host.call_soon_threadsafe  # type: ignore[method-assign]
        self.create_future = partial(_Forgiving, loop=host)  # type: ignore[method-assign]
        self.create_task = host.create_task  # type: ignore[method-assign]
        self._ended = threading.Event()

    def run_forever(self) -> None:
        self._ended.wait()

    def stop(self) -> None:
        self._ended.set()


class GuestPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes guests of `host` for whoever asks for a new loop."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._host = host

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return GuestLoop(self._host)  # type: ignore[abstract]
