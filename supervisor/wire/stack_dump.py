"""The stacks of a worker's threads at its end, in shared memory that outlives it. Worker and supervisor.

Python's faulthandler writes them from a signal handler in C, so also while a thread is inside of a call into
TensorFlow: on its own when the process crashes (SIGSEGV, SIGABRT and their like), and on `SIGNAL` when the supervisor
takes it for hung. The file cannot grow: a worker that goes mad fills no memory with it.
"""

import faulthandler
import fcntl
import os
import signal

SIGNAL = signal.SIGRTMIN + 5
"""Sent by the supervisor to have the stacks written. One that nothing else uses."""

MAX_BYTES = 64 * 1024


def create(name: str) -> int:
    """A file descriptor of an empty file in memory; it is gone with the last descriptor. Raises OSError."""
    fd = os.memfd_create(f"modelpool-stack-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, MAX_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def enable(fd: int) -> None:
    """In the worker: from now on its stacks are written there. The descriptor must stay open."""
    faulthandler.enable(fd, all_threads=True)
    faulthandler.register(SIGNAL, fd, all_threads=True, chain=False)


def read(fd: int) -> str:
    """What was written, "" for nothing; whatever a worker that went mad wrote there, this is a text."""
    return os.pread(fd, MAX_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")
