"""Reads a worker's standard error: keeps the end of it, passes lines on to the supervisor's own. Event loop only.

A worker that writes madly slows itself down and nobody else: what is read of it in a time is bounded, and so is what is
passed on. Its last words are kept whether they were passed on or not.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

KEPT_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
# A burst is read at once; beyond it, so much after each pause.
_BURST_BYTES = 1 << 20
_PAUSE_S = 0.05
# Lines that are passed on at once, and so many more each second.
_BURST_LINES = 200
_LINES_PER_S = 50
_MAX_LINE_BYTES = 8 * 1024


@dataclass(slots=True)
class Allowance:
    """So much at once, and so much more each second. Pure: time is handed in."""

    most: float
    per_s: float
    _left: float = field(init=False)
    _at_s: float | None = None

    def __post_init__(self) -> None:
        self._left = self.most

    def take(self, amount: float, now_s: float) -> bool:
        """Whether there is so much left, which is then gone."""
        since_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._left = min(self.most, self._left + since_s * self.per_s)
        if amount > self._left:
            return False
        self._left -= amount
        return True


class StderrTail:
    """The reading end of one worker's pipe, from its start to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, name: str, write: Callable[[bytes], object]) -> None:
        """Takes over the descriptor, which must not block. `write` takes whole lines for the supervisor's own log."""
        self._loop = loop
        self._fd = fd
        self._prefix = f"{name} | ".encode()
        self._tag = name.encode()
        self._write = write
        self._tail = bytearray()
        self._line = bytearray()
        self._reading = Allowance(_BURST_BYTES, _READ_BYTES / _PAUSE_S)
        self._lines = Allowance(_BURST_LINES, _LINES_PER_S)
        self._withheld = 0
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(fd, self._readable)

    def end(self) -> str:
        """Nobody writes there any more, or nobody who counts: the end of what was written. Closes the descriptor."""
        if self._fd < 0:
            return self.text
        for _ in range(_BURST_BYTES // _READ_BYTES):  # what the worker left behind may go on writing for ever
            if not self._read():
                break
        self._close()
        if self._line:
            self._pass_on(bytes(self._line))
        self._say_withheld()
        return self.text

    @property
    def text(self) -> str:
        """The end of what came so far."""
        return self._tail.decode("utf-8", "replace")

    def _readable(self) -> None:
        count = self._read()
        if count and not self._reading.take(count, self._loop.time()):
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> int:
        """Read a piece; how much, 0 at the end or when there is nothing."""
        try:
            piece = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            piece = b""
        if not piece:
            self._loop.remove_reader(self._fd)
            return 0
        self._tail += piece
        del self._tail[:-KEPT_BYTES]
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._line += line
            self._pass_on(bytes(self._line))
            self._line.clear()
        self._line += rest
        if len(self._line) > _MAX_LINE_BYTES:
            self._pass_on(bytes(self._line))
            self._line.clear()
        return len(piece)

    def _pass_on(self, line: bytes) -> None:
        if not self._lines.take(1, self._loop.time()):
            self._withheld += 1
            return
        self._say_withheld()
        # The worker's own log names it already.
        own = self._tag in line
        self._write((b"" if own else self._prefix) + line[:_MAX_LINE_BYTES] + b"\n")

    def _say_withheld(self) -> None:
        if self._withheld:
            self._write(self._prefix + f"({self._withheld} lines not shown)\n".encode())
            self._withheld = 0

    def _close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
