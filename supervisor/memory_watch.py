"""Looks at the memory of workers whose models have a limit. A thread per worker; told of in the event loop.

In threads, because reading the memory of a process waits while that process is busy mapping memory, which must stop
neither the supervisor nor the watch over the others. The exact figure (smaps_rollup) takes the kernel some milliseconds
for a big process; so as long as a cheaper figure, never below it, is far from the limit, it is read once a second only.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from . import host_memory
from .memory_limit import Sample
from .wire.arena import NAME_PREFIX
from .wire.ids import Incarnation
from .wire.log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.2
_EXACT_EVERY = 5
# How soon it is tried again where the limit on tasks left no room for a thread.
_AGAIN_S = 1.0
_FAR = 0.7
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PRIVATE, _SHARED = ("Private_Dirty:", "SwapPss:"), "Pss_Shmem:"
# A flight recorder is smaller; to look at each mapping takes as long again as the rollup.
_LEAST_SHARED_BYTES = 1 << 20
_PRIVATE_KB = re.compile(rb"^(?:Private_Dirty|SwapPss): +([0-9]+)", re.MULTILINE)
_REQUESTS_KB = re.compile(rb" /memfd:%b.*\n(?:[A-Z].*\n)*?Private_Dirty: +([0-9]+)" % NAME_PREFIX.encode())


class MemoryWatch:
    """`seen` is called in the loop with each sample."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seen: Callable[[Incarnation, Sample], None]) -> None:
        self._loop = loop
        self._seen = seen
        self._stops: dict[Incarnation, threading.Event] = {}

    def watch(self, incarnation: Incarnation, pid: int, limit_bytes: int, enforced_by: str) -> None:
        """From now on until `forget`, or its end."""
        stop = self._stops[incarnation] = threading.Event()
        self._start(incarnation, pid, limit_bytes, enforced_by, stop)

    def forget(self, incarnation: Incarnation) -> None:
        stop = self._stops.pop(incarnation, None)
        if stop is not None:
            stop.set()

    def close(self) -> None:
        for incarnation in list(self._stops):
            self.forget(incarnation)

    def _start(
        self, incarnation: Incarnation, pid: int, limit_bytes: int, enforced_by: str, stop: threading.Event
    ) -> None:
        if stop.is_set():
            return
        arguments = (incarnation, pid, limit_bytes, enforced_by, stop)
        try:
            threading.Thread(target=self._run, args=arguments, name=f"memory of {incarnation}", daemon=True).start()
        except RuntimeError as error:
            log.warning("memory of a worker not watched yet %s", fields(incarnation=incarnation, error=error))
            self._loop.call_later(_AGAIN_S, self._start, *arguments)

    def _run(
        self, incarnation: Incarnation, pid: int, limit_bytes: int, enforced_by: str, stop: threading.Event
    ) -> None:
        process = Path(f"/proc/{pid}")
        looks, failed = 0, False
        while not stop.is_set():
            try:
                if failed or looks % _EXACT_EVERY == 0 or at_most_bytes(process) > _FAR * limit_bytes:
                    sample = Sample(private_bytes(process), limit_bytes, host_memory.available_bytes(), enforced_by)
                    self._loop.call_soon_threadsafe(self._tell, incarnation, sample)
                failed = False
            except (OSError, ValueError) as error:
                if isinstance(error, ProcessLookupError) or not process.exists():
                    return
                if not failed:  # such as for want of a descriptor: no reason to let it have what it likes
                    log.warning("memory of a worker not seen %s", fields(incarnation=incarnation, error=error))
                failed = True
            except RuntimeError:
                return  # the loop is gone
            looks += 1
            stop.wait(PERIOD_S)

    def _tell(self, incarnation: Incarnation, sample: Sample) -> None:
        if incarnation in self._stops:
            self._seen(incarnation, sample)


def private_bytes(process: Path) -> int:
    """Memory that a process has for itself, and cannot give back by forgetting. Raises OSError, ValueError.

    To the kernel this includes what of a frontend's requests no other worker has looked at; to us it does not.
    """
    found = _kilobytes(process / "smaps_rollup", *_PRIVATE, _SHARED)
    if found[_SHARED] < _LEAST_SHARED_BYTES:
        return sum(found[name] for name in _PRIVATE)
    maps = (process / "smaps").read_bytes()
    return 1024 * (sum(map(int, _PRIVATE_KB.findall(maps))) - sum(map(int, _REQUESTS_KB.findall(maps))))


def at_most_bytes(process: Path) -> int:
    """Never less than `private_bytes` but for swap and shared memory, and read at once. Raises OSError, ValueError."""
    _, resident, shared, *_ = map(int, (process / "statm").read_text().split())
    return (resident - shared) * _PAGE_BYTES


def _kilobytes(path: Path, *names: str) -> dict[str, int]:
    found = dict.fromkeys(names, 0)
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024
    return found
