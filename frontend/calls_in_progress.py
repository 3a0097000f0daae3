"""Calls whose clients may go, or whose time may run out, while they wait: noticed, and cancelled. In the event loop.

A task or a second `receive` per call would cost as much as the rest of the call: beside a model that computes, whose
runs leave nothing of ours in the caches, 0.3 ms. Most calls are over within some tens of milliseconds, and a worker
that is told of a cancelled one can only leave out what has not begun. So all of them are looked through ten times a
second, and only those that were there at the last look are asked whether their client is.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.status import DeadlineExceeded

from .callback import guarded
from .engine import Receive

_LOOK_S = 0.1
# So many are asked in one turn of the loop; the next ones soon.
_MOST_AT_ONCE = 200
_SOON_S = 0.01
# The core answers at the deadline by itself; this is for those who wait for somebody else.
_GRACE_NS = 20_000_000


class ClientGone(Exception):
    """The client gave up, or its connection ended."""


class Watched(Protocol):
    """A call as this module has it. `seen`: it was there at the last look, and may be asked after its client now.

    `look`: whether it was asked; seldom more than once.
    """

    seen: bool

    def look(self, now_ns: int) -> bool: ...


class _Watched:
    __slots__ = ("asking", "deadline_ns", "failure", "receive", "seen", "task")

    def __init__(self, task: "asyncio.Task[Any]", receive: Receive, deadline_ns: int) -> None:
        self.task = task
        self.receive = receive
        self.deadline_ns = deadline_ns
        self.seen = False
        self.asking: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    def look(self, now_ns: int) -> bool:
        asks = self.asking is None
        if asks:
            self.asking = asyncio.get_running_loop().create_task(_until_gone(self))
        if self.deadline_ns != data.NO_DEADLINE_NS and now_ns > self.deadline_ns + _GRACE_NS:
            self.give_up(DeadlineExceeded("Deadline exceeded"))
        return asks

    def give_up(self, failure: Exception) -> None:
        if self.failure is None:
            self.failure = failure
            self.task.cancel()


class CallsInProgress:
    """All calls of one application: `add` each, then `look_soon`; `discard` those that are over."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: set[Watched] = set()
        self._looking = False
        self.add = self._calls.add
        self.discard = self._calls.discard

    def look_soon(self) -> None:
        """Some have been added."""
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    @contextmanager
    def watched(self, receive: Receive, deadline_ns: int) -> Iterator[None]:
        """The current task is cancelled when its client is gone (ClientGone) or its time is up (DeadlineExceeded).

        `receive` must have given the whole request. `deadline_ns`: CLOCK_MONOTONIC, `data.NO_DEADLINE_NS` for none.
        """
        task = asyncio.current_task()
        assert task is not None
        call = _Watched(task, receive, deadline_ns)
        self.add(call)
        self.look_soon()
        try:
            yield
        except asyncio.CancelledError:
            if call.failure is None:
                raise
            task.uncancel()
            raise call.failure from None
        finally:
            self.discard(call)
            if call.asking is not None:
                call.asking.cancel()

    @contextmanager
    def cancelled_with(self, work: Coroutine[Any, Any, None]) -> Iterator[None]:
        """The current task is cancelled, and raises what `work` raises, if that comes before the end of the block."""
        task = asyncio.current_task()
        assert task is not None
        failure: BaseException | None = None

        def ended(beside: "asyncio.Task[None]") -> None:
            nonlocal failure
            if not beside.cancelled() and beside.exception() is not None:
                failure = beside.exception()
                task.cancel()

        beside = asyncio.ensure_future(work)
        beside.add_done_callback(ended)
        try:
            yield
        except asyncio.CancelledError:
            if failure is None:
                raise
            task.uncancel()
            raise failure from None
        finally:
            beside.remove_done_callback(ended)
            beside.cancel()

    @guarded
    def _look(self) -> None:
        now_ns, asked, new = time.monotonic_ns(), 0, []
        for call in self._calls:
            if not call.seen:
                new.append(call)
            elif asked < _MOST_AT_ONCE:
                asked += call.look(now_ns)
        self._looking = bool(self._calls)
        if asked == _MOST_AT_ONCE:
            self._loop.call_later(_SOON_S, self._look)
            return
        for call in new:
            call.seen = True
        if self._looking:
            self._loop.call_later(_LOOK_S, self._look)


async def _until_gone(call: _Watched) -> None:
    """Ask until the client is gone. What else comes is of no use: the request is complete."""
    while (await call.receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - see `rest_pyvoy`
        await asyncio.sleep(_LOOK_S)
    call.give_up(ClientGone())
