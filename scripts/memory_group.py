"""A control group (cgroup v1) whose memory runs out, to see what the kernel then does to the processes in it.

Where the memory controller is one of cgroup v1 and our own group may have children: as root, outside of most
containers. The kernel counts and kills in it as it does on a host that has no memory left.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from modelpool.supervisor.own_group import Version, upwards

_EMPTY_WITHIN_S = 10.0
_LOOK_S = 0.05


class NoGroup(Exception):
    """None can be had here; the text says why."""


class MemoryGroup:
    """One group, `path`, with no process in it yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def made(cls, limit_bytes: int) -> Iterator[Self]:
        """From the begin of the `with` block to its end. Raises NoGroup."""
        path = _own_group() / f"modelpool-{uuid.uuid4().hex[:12]}"
        try:
            path.mkdir()
        except OSError as error:
            raise NoGroup(f"no group of cgroup v1 can be made: {error}") from error
        try:
            try:
                (path / "memory.limit_in_bytes").write_text(str(limit_bytes))
                with contextlib.suppress(FileNotFoundError):  # a kernel that does not account swap has no such file
                    (path / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))
            except OSError as error:
                raise NoGroup(f"a group of cgroup v1 takes no limit: {error}") from error
            yield cls(path)
        finally:
            _remove(path)

    def enter(self) -> None:
        """This process, and those that it starts from now on."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def kills(self) -> int:
        """How many processes of it the kernel has ended for lack of memory."""
        counts = dict(line.split() for line in (self.path / "memory.oom_control").read_text().splitlines())
        return int(counts["oom_kill"])


def _own_group() -> Path:
    path = next(iter(upwards(Version.V1)), None)
    if path is None:
        raise NoGroup("the memory controller is not one of cgroup v1 here")
    if not os.access(path, os.W_OK):
        raise NoGroup(f"{path} may not be written")
    return path


def _remove(path: Path) -> None:
    """As soon as its last process is reaped."""
    ends_s = time.monotonic() + _EMPTY_WITHIN_S
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return
