"""One look of a source at its base path, in a thread of its own, whatever the file system makes of it.

Runs in the supervisor's event loop, the looking itself in the thread. A file system that hangs is said to hang, and
its thread is left waiting; one that raises what nobody expected costs that model its look. Knows no configuration.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .daemon_thread import call_in_thread
from .io_status import describe
from .source import Poll, Source
from .wire.log import fields
from .wire.status import Code, PoolError, Status, Unavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds, until it is said that there is no answer: `look_s` for the list of versions and
    for each of them, `fetch_s` for the copy of a remote one.
    """

    look_s: float
    fetch_s: float


async def look(source: Source, needed: frozenset[int], patience: Patience, overdue: Callable[[Status], None]) -> Poll:
    """What the source finds; the copies of versions that are not `needed` are removed first, if any are.

    A look that takes too long is told to `overdue`, once, and waited for all the same. Raises nothing.
    """
    looking = asyncio.ensure_future(call_in_thread(_look, source, needed, name=f"source {source.model_name}"))
    try:
        hangs = await _hang(source, looking, patience)
        if hangs is not None:
            overdue(hangs)
        return await looking
    except Unavailable as error:  # no thread could be started
        return Poll(source.model_name, {}, error=error.status)
    finally:
        looking.cancel()


async def empty(source: Source) -> None:
    """Remove the copies of all versions: nobody looks by this source any more, and nothing runs from them."""
    try:
        await call_in_thread(_tidy, source, frozenset(), name=f"cache {source.model_name}")
    except Exception as error:  # noqa: BLE001 - what is left is only in the way
        log.warning("cache not emptied %s", fields(folder=source.copies, error=describe(error)))


async def _hang(source: Source, looking: "asyncio.Future[Poll]", patience: Patience) -> Status | None:
    """Wait until it has looked; what does not come to its end in time, if anything."""
    started_s = time.monotonic()
    while not looking.done():
        step = source.step
        limit_s = patience.fetch_s if step.fetching else patience.look_s
        left_s = max(step.since_s, started_s) + limit_s - time.monotonic()
        if left_s <= 0:
            return Status(Code.UNAVAILABLE, f"{step.what} did not answer within {limit_s:g} s")
        await asyncio.wait({looking}, timeout=min(left_s, patience.look_s))  # for the next step may be a look
    return None


def _look(source: Source, needed: frozenset[int]) -> Poll:
    """In the thread: tidy the cache, and look."""
    try:
        if needed:
            _tidy(source, needed)
        return source.poll()
    except Exception as error:
        log.exception("source failed %s", fields(model=source.model_name))
        text = f"Could not look for versions of servable {source.model_name}: {describe(error)}"
        return Poll(source.model_name, {}, error=Status(Code.INTERNAL, text))


def _tidy(source: Source, needed: frozenset[int]) -> None:
    try:
        source.prune(needed)
    except PoolError as error:
        log.warning("cache not tidied %s", fields(error=error.status))
