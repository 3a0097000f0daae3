"""Has those that give way leave one CPU after another for a moment. Linux; event loop only.

The kernel spreads threads when a CPU goes idle, which one that is full of a flood at idle priority never does; what it
does every few milliseconds besides moves one thread at a time. So the threads on another model's way, which wake each
other, gather on one CPU and wait for each other there, while the flood has another one for itself. A CPU that the flood
has left goes idle, and takes over what waits elsewhere.

A tenant decides how many threads it has and how fast it starts more, so the event loop has its turn after every few,
and who has many leaves its CPUs more rarely. A new thread has the CPUs of the one that starts it, but may be listed
only long after that, for at idle priority it waits while it is made: so what is left is looked for once more later.
"""

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# Rare enough that the CPUs do not count as idle because of it.
EVERY_S, LASTS_S = 0.02, 0.004
# Threads until the event loop has its turn, some 0.5 ms, and for each turn on average: about a twentieth of its time.
AT_ONCE, FOR_EACH_TURN = 100, 250
# Each leaves fewer threads that could start another; what is left after them has its CPUs back by a later turn.
_PASSES = 3
# How often one that leaves no CPU any more is looked at again.
LATER = 10


@dataclass(slots=True)
class _Process:
    cpus: frozenset[int]
    own: set[int] | None = None
    """Threads that had other CPUs before the first turn, by their own will: they keep them."""
    again: int = LATER

    def is_ours(self, cpus: set[int]) -> bool:
        """Whether these are what it is left with in some turn."""
        return len(cpus) == len(self.cpus) - 1 and cpus < self.cpus


class ElbowRoom:
    """Knows who has left a CPU until all its threads have it back. Processes are children of this one."""

    def __init__(self) -> None:
        self._known: dict[int, _Process] = {}
        self._turn = 0
        self._ahead = 0
        """Threads that were set beyond what there may be on average."""

    async def make(self, pids: Collection[int]) -> None:
        """For `LASTS_S`, keep the threads of these off one of their CPUs, another one each turn. Each has them back.

        Also when this is cancelled. A thread that has chosen its CPUs itself, and a process that has a single one, stay
        as they are; but of two CPUs, one that was chosen after the first turn cannot be told from what is left of a
        turn, and becomes two. Where there are many threads some turns pass without.
        """
        self._ahead = max(0, self._ahead - FOR_EACH_TURN)
        if self._ahead:
            await asyncio.sleep(LASTS_S)
            return
        self._turn += 1
        leaving = [pid for pid in pids if self._meet(pid)]
        try:
            await self._by_and_by(step for pid in leaving for step in self._leave(pid))
            await asyncio.sleep(LASTS_S)
        finally:
            await self._by_and_by(step for pid in leaving for step in self._return(pid))

    async def settle(self) -> None:
        """Give back what was not found at the end of a turn, unless the next one does; to be called between turns."""
        ahead = self._ahead
        for pid, process in list(self._known.items()):
            if not process.again or not self._meet(pid) or self._known[pid] is not process:
                self._known.pop(pid, None)
            elif process.again < LATER:
                await self._by_and_by(self._return(pid))
            process.again -= 1
        self._ahead = ahead  # only to look takes a quarter of the time, and this is rarer than turns

    async def _by_and_by(self, steps: Iterator[None]) -> None:
        try:
            for _ in steps:
                await asyncio.sleep(0)
        finally:
            for _ in steps:  # cancelled
                pass

    def _meet(self, pid: int) -> bool:
        """Whether it is there and has several CPUs; who has others than before, by somebody else's will, is new."""
        known = self._known.get(pid)
        cpus = _cpus(pid) if _is_child(pid) else set()
        if known and known.cpus == cpus:
            return True
        self._known.pop(pid, None)
        if len(cpus) > 1:
            self._known[pid] = _Process(frozenset(cpus))
        return len(cpus) > 1

    def _leave(self, pid: int) -> Iterator[None]:
        process, threads = self._known[pid], _threads(pid)
        process.again = LATER
        before = process.own
        process.own = threads & before if before is not None else set()
        cpus = process.cpus - {sorted(process.cpus)[self._turn % len(process.cpus)]}
        for thread in self._counted(threads - process.own):
            if thread is None:
                yield
            elif (now := _cpus(thread)) == process.cpus or (before is not None and process.is_ours(now)):
                _set(thread, cpus)
            elif before is None:
                process.own.add(thread)

    def _return(self, pid: int) -> Iterator[None]:
        process, done = self._known[pid], set[int]()
        for _ in range(_PASSES):
            found = False
            new = _threads(pid) - (process.own or set()) - done
            for thread in self._counted(new):
                if thread is None:
                    yield
                elif process.is_ours(_cpus(thread)):
                    found = True
                    _set(thread, process.cpus)
            done |= new
            if not found:
                return

    def _counted(self, threads: Collection[int]) -> Iterator[int | None]:
        """These, with None wherever the event loop should have its turn."""
        if len(threads) > AT_ONCE:
            yield None  # to list them took long, too
        for thread in threads:
            yield thread
            self._ahead += 1
            if self._ahead % AT_ONCE == 0:
                yield None


def _is_child(pid: int) -> bool:
    """Not when it is reaped: the number may be another's."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _threads(pid: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()


def _cpus(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except OSError:
        return set()


def _set(thread: int, cpus: Collection[int]) -> None:
    with contextlib.suppress(OSError):  # it is gone, or the machine has taken the CPUs away and the kernel seen to it
        os.sched_setaffinity(thread, cpus)
