"""Whether the kernel killed a process because the host, or our control group, was out of memory. Event loop only.

A SIGKILL does not say who sent it. The kernel's log names its victims by pid and name, so that is certain, where it may
be read. Otherwise its counts of such kills have grown, or not: of our own group, or, less sure, of the whole host. Each
kill that was counted explains one death; of two workers that were killed in the same moment, it may be the wrong one.
"""

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

from . import own_group
from .own_group import MOUNT, PROC, Version

_VICTIM = re.compile(rb"(?:Killed process |oom-kill:.*task=|oom_reaper: reaped process )(?P<rest>.*)")
_PID_AND_NAME = re.compile(rb"(\d+) \(([^)]*)\)")
_MAX_RECORDS = 10_000
_RECORD_BYTES = 8192


class Verdict(StrEnum):
    """Whether the kernel killed a process for want of memory."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    NO = "no"


class OomWatch:
    """`kmsg` and `counters` are seams: the kernel's log, and where it counts."""

    def __init__(self, kmsg: str = "/dev/kmsg", counters: Iterable[Callable[[], int | None]] | None = None) -> None:
        self._victims: deque[tuple[int, bytes]] = deque(maxlen=256)
        self._kmsg = _open_at_end(kmsg)
        candidates = (_group_v2, _group_v1, _host) if counters is None else tuple(counters)
        # The first that there is: a nearer one is surer than a wider one.
        self._counter = next((each for each in candidates if each() is not None), None)
        self._last = self._before = self._now()

    def tick(self) -> None:
        """About once a second: what was counted before then explains nothing that happens later."""
        self._before, self._last = self._last, self._now()

    def look(self, pid: int, name: str) -> Verdict:
        """Of a process that was killed by a SIGKILL which we did not send. `name`: as `ps` shows it."""
        self._read_log()
        killed = self._now() - self._before
        victim = (pid, name.encode()[:15])
        if victim in self._victims:
            self._victims.remove(victim)
            verdict = Verdict.CERTAIN
        else:
            verdict = Verdict.PROBABLE if killed > 0 else Verdict.NO
        if killed > 0:
            self._before, self._last = self._before + 1, max(self._last, self._before + 1)
        return verdict

    def close(self) -> None:
        if self._kmsg is not None:
            os.close(self._kmsg)
            self._kmsg = None

    def _now(self) -> int:
        return (self._counter() if self._counter is not None else None) or 0

    def _read_log(self) -> None:
        for _ in range(_MAX_RECORDS):
            if self._kmsg is None:
                return
            try:
                record = os.read(self._kmsg, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # records were overwritten before we came to read them
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if not record:
                return
            match = _VICTIM.search(record)
            named = _PID_AND_NAME.search(match["rest"]) if match is not None else None
            if named is not None:
                self._victims.append((int(named[1]), named[2]))


def ended_together(proc: Path = PROC, mount: Path = MOUNT) -> Path | None:
    """A group, our own or one above it, of which the kernel ends every process when it ends one for want of memory.

    `memory.oom.group` (Documentation/admin-guide/cgroup-v2.rst). None where it ends one process only.
    """
    with contextlib.suppress(OSError):
        for group in own_group.upwards(Version.V2, proc, mount):
            with contextlib.suppress(OSError):
                if (group / "memory.oom.group").read_text().strip() == "1":
                    return group
    return None


def _open_at_end(path: str) -> int | None:
    """None where it may not be read, as in most containers."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.lseek(fd, 0, os.SEEK_END)
        except OSError:
            os.close(fd)
            return None
        return fd
    return None


def _group_v2() -> int | None:
    return nearest_count(Version.V2, "memory.events")


def _group_v1() -> int | None:
    return nearest_count(Version.V1, "memory.oom_control")


def _host() -> int | None:
    return _field(Path("/proc/vmstat"), "oom_kill")


def nearest_count(version: Version, name: str, proc: Path = PROC, mount: Path = MOUNT) -> int | None:
    """The count of our own group, or of the next above it that has one."""
    with contextlib.suppress(OSError):
        for group in own_group.upwards(version, proc, mount):
            count = _field(group / name, "oom_kill")
            if count is not None:
                return count
    return None


def _field(file: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None
