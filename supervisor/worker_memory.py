"""The memory of workers, as far as processes go: who enforces a limit, what is used, who was killed for it. Event loop.

Puts together the kernel's groups (`cgroup`), the watch (`memory_watch`) and the kernel's account of those that it has
killed (`oom`). What follows from a sample is the manager's business.
"""

import asyncio
import logging
import signal
from collections.abc import Callable

from .cgroup import MemoryGroup, MemoryGroups
from .exits import Exit, ExitKind
from .memory_limit import Sample
from .memory_watch import MemoryWatch
from .oom import OomWatch, Verdict, ended_together
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.worker_spec import WorkerSpec

log = logging.getLogger(__name__)

_TICK_S = 1.0
_MIB = 1 << 20


class WorkerMemory:
    """`groups` is None where the kernel cannot be told of limits: then the watch is all there is."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seen: Callable[[Incarnation, Sample], None],
        groups: MemoryGroups | None,
        oom: OomWatch | None = None,
    ) -> None:
        self._loop = loop
        self._groups = groups
        self._watch = MemoryWatch(loop, seen)
        self._oom = oom or OomWatch()
        self._group_of: dict[Incarnation, MemoryGroup] = {}
        self._killed: set[int] = set()
        self._timer = loop.call_later(_TICK_S, self._tick)
        together = ended_together()
        if together is not None:
            log.warning("out of memory the kernel ends the whole pool, not one worker %s", fields(cgroup=together))

    def started(self, spec: WorkerSpec, pid: int) -> None:
        """Its process is there, and still small."""
        if not spec.host_memory_bytes:
            return
        enforced_by = "watch"
        if self._groups is not None:
            self._groups.sweep()
            try:
                group = self._groups.make(str(spec.incarnation), spec.host_memory_bytes)
                self._group_of[spec.incarnation] = group
                group.add(pid)
                enforced_by = "cgroup"
            except OSError as error:
                log.warning("no cgroup for a worker %s", fields(incarnation=spec.incarnation, error=error))
        self._watch.watch(spec.incarnation, pid, spec.host_memory_bytes, enforced_by)

    def killed(self, pid: int) -> None:
        """We kill it ourselves: nobody need look for another who did."""
        self._killed.add(pid)

    def ended(self, spec: WorkerSpec, pid: int, exit_: Exit) -> Exit:
        """How it ended, with what is known of why."""
        self._watch.forget(spec.incarnation)
        ours = pid in self._killed
        self._killed.discard(pid)
        group = self._group_of.pop(spec.incarnation, None)
        over, for_others = (group.killed, group.killed_for_others) if group is not None else (False, False)
        if group is not None:
            group.remove()
        if over:
            limit = f"{spec.host_memory_bytes / _MIB:.0f} MiB"
            return exit_.explained(
                f"{exit_.cause} by the kernel: over its memory limit of {limit}", ExitKind.MEMORY_LIMIT
            )
        if ours or exit_.signal != signal.SIGKILL:
            return exit_
        match Verdict.CERTAIN if for_others else self._oom.look(pid, spec.process_name):
            case Verdict.CERTAIN:
                return exit_.explained(f"{exit_.cause} by the kernel: out of memory", ExitKind.OOM_KILLED)
            case Verdict.PROBABLE:
                text = f"{exit_.cause}: probably by the kernel, which has just killed for lack of memory"
                return exit_.explained(text, ExitKind.OOM_KILLED)
        return exit_

    def close(self) -> None:
        self._timer.cancel()
        self._watch.close()
        self._oom.close()
        for group in self._group_of.values():
            group.remove()
        if self._groups is not None:
            self._groups.sweep()

    def _tick(self) -> None:
        self._oom.tick()
        self._timer = self._loop.call_later(_TICK_S, self._tick)
