"""The tasks of a pool: whatever fails in one of them, or in a callback, is the pool's own failure and ends it.

Runs in the supervisor's event loop; knows nothing of what the tasks do.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Those of one event loop. `ended` is done when the pool is to end, and says with which error, if any."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def background(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run this beside the others, to its end or to that of the pool; an error in it is the pool's own."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def end(self) -> None:
        """In good order."""
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Because of this."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: an error in a timer, a signal handler or a reader counts as one in a task."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        if isinstance(error, Exception) and "handle" in context:
            self.fail(error)

    def changed(self) -> None:
        """Something has happened that somebody may wait for with `until`."""
        self._changed.set()

    async def until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `done`, asked after each change, but for no longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    async def cancel(self) -> None:
        """All of them, and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
