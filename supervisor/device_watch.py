"""Looks at the GPUs again and again, and keeps what was learnt of their memory. In the event loop; NVML in a thread.

Where there is no GPU it looks now and then: a driver may be loaded after the pool. NVML may hang with the driver: then
there are no news, and nothing else stops.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from . import memory_book
from .daemon_thread import call_in_thread
from .devices import Nvml
from .places import Places
from .wire.log import fields
from .wire.status import PoolError, Unavailable

log = logging.getLogger(__name__)

# Between two looks; and when somebody waits for the next one.
_PERIOD_S, _SOON_S = 1.0, 0.1
# Between two looks for GPUs where there are none; a GPU that is there and does not answer is looked at as any.
_ABSENT_PERIOD_S = 30.0


class DeviceWatch:
    """`advance` is called after each look. `folder`: where the memory book is kept."""

    def __init__(self, nvml: Nvml, places: Places, folder: Path, advance: Callable[[], None]) -> None:
        self._nvml = nvml
        self._places = places
        self._folder = folder
        self._advance = advance
        self._nudged = asyncio.Event()
        self._error = ""

    def nudge(self) -> None:
        """Look soon: a process has come or gone."""
        self._nudged.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._look()
            if not (self._places.inventory.gpus or self._places.inventory.silent):
                await asyncio.sleep(_ABSENT_PERIOD_S)
                continue
            await asyncio.sleep(_SOON_S)
            try:
                async with asyncio.timeout(_PERIOD_S - _SOON_S):
                    await self._nudged.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        self._nudged.clear()
        taken_s = time.monotonic()
        try:
            snapshot = await call_in_thread(self._nvml.look, name="nvml")
        except PoolError as error:
            # CUDA may go on without NVML, as after an update of the driver: nothing is moved for it.
            if error.message != self._error:
                log.error("GPUs cannot be watched %s", fields(why=error.message))
            self._error = error.message
            return
        self._error = ""
        news = self._places.look(snapshot, taken_s)
        self._advance()
        if news:
            await self._keep()

    async def _keep(self) -> None:
        try:
            await call_in_thread(memory_book.write, self._folder, self._places.book.to_json(), name="memory book")
        except (OSError, Unavailable) as error:
            log.warning("GPU memory figures not kept %s", fields(folder=self._folder, error=error))
