"""Keeps a report of each death without being in anybody's way. In the supervisor's event loop; files in threads."""

import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from .crash_files import CrashFiles
from .daemon_thread import call_in_thread
from .wire.log import fields
from .wire.status import Unavailable

log = logging.getLogger(__name__)

# Reports that may be on their way to a disk that hangs; those beyond are lost.
_MAX_WAITING = 16


class Crashes:
    """`background` runs a task of the pool; `pool` is what each report says of the pool itself."""

    def __init__(
        self,
        directory: Path,
        background: Callable[[Coroutine[Any, Any, None], str], object],
        pool: Mapping[str, Any],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self._files = CrashFiles(directory)
        self._background = background
        self._pool = dict(pool)
        self._wall = wall
        self._waiting = 0
        self.lost = 0
        """Reports that could not be written."""

    def keep(self, report: Mapping[str, Any]) -> None:
        """Have it written; one that cannot be is lost, which the log tells."""
        names = fields(model=report["model"], version=report["version"], incarnation=report["incarnation"])
        if self._waiting >= _MAX_WAITING:
            self.lost += 1
            log.warning("crash report lost %s error='too many wait for the disk'", names)
            return
        self._waiting += 1
        self._background(self._write({**report, "pool": self._pool}, names), "crash report")

    async def _write(self, report: Mapping[str, Any], names: str) -> None:
        try:
            id_ = await call_in_thread(self._files.write, report, self._wall(), name="crash report")
        except (OSError, Unavailable) as error:
            self.lost += 1
            log.warning("crash report lost %s %s", names, fields(error=error))
        else:
            log.info("crash report %s %s", names, fields(id=id_))
        finally:
            self._waiting -= 1
