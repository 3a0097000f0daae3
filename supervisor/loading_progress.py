"""Says in the log which loads take their time: which version, in which phase, for how long. Event loop only.

A short load is told by its beginning and its end; who watches a long one wants to know that it goes on.
"""

import asyncio
import logging
from collections.abc import Callable

from .lifecycle import LOADING
from .manager import Manager
from .wire.log import fields

log = logging.getLogger(__name__)

EVERY_S = 5.0


async def run_loading_progress(manager: Manager, now_s: Callable[[], float]) -> None:
    """Tell of each worker that has been in a phase of its start for EVERY_S, again and again. Never returns."""
    while True:
        await asyncio.sleep(EVERY_S)
        for line in lines(manager, now_s()):
            log.info(line)


def lines(manager: Manager, now_s: float) -> list[str]:
    """What there is to tell now."""
    servables = [servable for model in manager.models.values() for servable in model.newest_first()]
    return [
        f"still {slot.state.value} " + fields(slot=slot.id, incarnation=slot.incarnation, seconds=f"{age_s:.0f}")
        for servable in servables
        for slot in servable.slots
        if slot.state in LOADING and (age_s := now_s - slot.since_s) >= EVERY_S
    ]
