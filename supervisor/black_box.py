"""What the supervisor holds of a worker and reads when it is dead: flight recorder, stacks, standard error. Event loop.

All of it is made before the worker is, and handed to it as descriptors; none of it needs the worker's help to be read.
"""

import asyncio
import os
import sys
from dataclasses import replace

from .exits import Exit, Remains
from .stderr_tail import StderrTail
from .wire import flight_recorder, stack_dump
from .wire.worker_spec import WorkerSpec


class BlackBox:
    """Of one incarnation."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: WorkerSpec) -> None:
        """Raises OSError."""
        self.spec = spec
        self._recorder = flight_recorder.create(str(spec.incarnation))
        try:
            self._stack = stack_dump.create(str(spec.incarnation))
        except OSError:
            os.close(self._recorder)
            raise
        try:
            reading, self._writing = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(self._recorder)
            os.close(self._stack)
            raise
        os.set_blocking(reading, False)
        self._stderr = StderrTail(loop, reading, spec.log_name, write_stderr)

    @property
    def given(self) -> tuple[int, ...]:
        """The worker's descriptors, in the order of `worker.main.Inherited`."""
        return self._recorder, self._stack, self._writing

    def handed_over(self) -> None:
        """The worker has its own; only it writes from now on. Idempotent."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    @property
    def stack_bytes(self) -> int:
        """How much of the stacks was written so far."""
        return len(stack_dump.read(self._stack))

    @property
    def stderr(self) -> str:
        """The end of what came so far."""
        return self._stderr.text

    def open(self, exit_: Exit, peak_rss_bytes: int | None) -> Exit:
        """It is dead: how it ended, with what it left. Once."""
        self.handed_over()
        recording, stack = flight_recorder.read(self._recorder), stack_dump.read(self._stack)
        os.close(self._recorder)
        os.close(self._stack)
        return replace(exit_, recording=recording, remains=Remains(stack, self._stderr.end(), peak_rss_bytes))


def write_stderr(line: bytes) -> None:
    """To this process's own standard error; what it does not take is lost."""
    try:
        os.write(sys.stderr.fileno(), line)
    except (OSError, ValueError):
        return
