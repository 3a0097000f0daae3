"""Blocking calls in a thread of their own, awaited from the event loop.

Not the loop's executor: its few threads are shared, so that some hung file systems would stop all others, and its
threads are joined at the end, so that one of them would stop the exit, too.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from .wire.status import Unavailable

T = TypeVar("T")


async def call_in_thread(function: Callable[..., T], *args: Any, name: str) -> T:
    """`function(*args)` in a new daemon thread; its result or its error. Cancelling abandons the thread.

    Raises Unavailable where no thread can be started: models share the limit on tasks, and one may have used it up.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args)
        except BaseException as raised:  # noqa: BLE001 - the caller gets it
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise Unavailable(f"{name}: {error}") from None
    return await future
