"""The flight recorder of one worker: which requests it executes, and which it finished last. Worker and supervisor.

A file of fixed-size entries in shared memory that the supervisor makes and keeps, so that it outlives the worker: the
worker writes it, the supervisor reads it after the death. No lock: an entry is written before its state byte says so,
so that a writer that dies in between leaves an entry that does not count, and never one that is wrong.

Behind the entries there is room for the worker's last words, which are read when it is gone: unlike a message, they
cannot be overtaken by the news of the exit. Only this module knows the layout. It holds no payloads: what is in it may
be written to a crash report.
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CAPACITY = 4096
"""Entries: more than a worker executes at the same time (a batch has at most 1000 requests by default)."""

# Request id, frontend's incarnation, when it began and ended (CLOCK_MONOTONIC), payload's size, method, code.
_ENTRY = struct.Struct("<QQqqQBB")
_BEGUN = struct.Struct("<QQqqQB")
_END = struct.Struct("<q")
_STATE_AT = _ENTRY.size
_ENDED_AT = struct.calcsize("<QQq")
_CODE_AT = _ENTRY.size - 1
_STRIDE = 48
_WORDS_AT = CAPACITY * _STRIDE
_LENGTH = struct.Struct("<I")
MAX_WORDS_BYTES = 16 * 1024
_SIZE = _WORDS_AT + _LENGTH.size + MAX_WORDS_BYTES
_EMPTY, _EXECUTING, _FINISHED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Flight:
    """One request of one frontend (by its incarnation). While it executes, `ended_ns` is 0 and `code` means nothing."""

    request_id: int
    frontend: int
    began_ns: int
    ended_ns: int
    size_bytes: int
    method: int
    code: int


@dataclass(frozen=True, slots=True)
class Recording:
    """What a worker left: requests that it was executing, and those it finished last, both in the order they began.

    `last_words`: what it had to say at its end, an encoded message; empty when it died without a word.
    """

    executing: tuple[Flight, ...] = ()
    finished: tuple[Flight, ...] = ()
    last_words: bytes = b""


NO_RECORDING = Recording()


def create(name: str) -> int:
    """A file descriptor of a new, empty recorder in memory; it is gone with the last descriptor. Raises OSError."""
    fd = os.memfd_create(f"modelpool-{name}", os.MFD_CLOEXEC)
    try:
        # Taken at once: a page that is missing later would kill the writer.
        os.posix_fallocate(fd, 0, _SIZE)
    except OSError:
        os.close(fd)
        raise
    return fd


class FlightRecorder:
    """The writer's side. `begin` and `end` may be called by several threads of one process."""

    def __init__(self, fd: int) -> None:
        """Takes over the descriptor."""
        self._map = mmap.mmap(fd, _SIZE)
        os.close(fd)
        self.deadly_size_bytes = -1
        """A request of this size kills the process as it begins: for `modelpool chaos` only."""
        # The entry that has been free for the longest is taken first, so that the last requests stay readable.
        self._free = deque(range(0, _WORDS_AT, _STRIDE))

    def begin(self, frontend: int, request_id: int, method: int, size_bytes: int, now_ns: int) -> int:
        """A request is executed from now on; the entry to `end` it by. Raises IndexError beyond CAPACITY at a time."""
        at = self._free.popleft()
        self._map[at + _STATE_AT] = _EMPTY
        _BEGUN.pack_into(self._map, at, request_id, frontend, now_ns, 0, size_bytes, method)
        self._map[at + _STATE_AT] = _EXECUTING
        if size_bytes == self.deadly_size_bytes:
            os.abort()
        return at

    def begin_several(
        self, frontend: int, request_ids: Iterable[int], method: int, size_bytes: int, now_ns: int
    ) -> list[int]:
        """As `begin`, of requests of one size that are executed together."""
        memory, free, pack = self._map, self._free, _BEGUN.pack_into
        entries = []
        for request_id in request_ids:
            at = free.popleft()
            memory[at + _STATE_AT] = _EMPTY
            pack(memory, at, request_id, frontend, now_ns, 0, size_bytes, method)
            memory[at + _STATE_AT] = _EXECUTING
            entries.append(at)
        if size_bytes == self.deadly_size_bytes:
            os.abort()
        return entries

    def end(self, entry: int, code: int, now_ns: int) -> None:
        """It was executed; its answer may not have left yet."""
        _END.pack_into(self._map, entry + _ENDED_AT, now_ns)
        self._map[entry + _CODE_AT] = code
        self._map[entry + _STATE_AT] = _FINISHED
        self._free.append(entry)

    def end_several(self, entries: Sequence[int], code: int, now_ns: int) -> None:
        """As `end`, of each."""
        memory, pack = self._map, _END.pack_into
        for entry in entries:
            pack(memory, entry + _ENDED_AT, now_ns)
            memory[entry + _CODE_AT] = code
            memory[entry + _STATE_AT] = _FINISHED
        self._free.extend(entries)

    def withdraw(self, entry: int) -> None:
        """It is not executed after all, for now: it waits."""
        self._map[entry + _STATE_AT] = _EMPTY
        self._free.append(entry)

    def leave(self, words: bytes) -> None:
        """The last words of this worker, MAX_WORDS_BYTES at most; they count once, when it is gone."""
        begins = _WORDS_AT + _LENGTH.size
        self._map[begins : begins + len(words)] = words
        _LENGTH.pack_into(self._map, _WORDS_AT, len(words))

    def close(self) -> None:
        self._map.close()


def read(fd: int) -> Recording:
    """What the recorder holds; whatever a worker that went mad wrote there, this is a Recording."""
    raw = os.pread(fd, _SIZE, 0).ljust(_SIZE, b"\0")  # a mad writer may have cut it short
    flights: dict[int, list[Flight]] = {_EXECUTING: [], _FINISHED: []}
    for at in range(0, _WORDS_AT, _STRIDE):
        kept = flights.get(raw[at + _STATE_AT])
        if kept is not None:
            request_id, frontend, began_ns, ended_ns, size_bytes, method, code = _ENTRY.unpack_from(raw, at)
            kept.append(Flight(request_id, frontend, began_ns, ended_ns, size_bytes, method, code))
    executing, finished = (tuple(sorted(kept, key=lambda flight: flight.began_ns)) for kept in flights.values())
    (length,) = _LENGTH.unpack_from(raw, _WORDS_AT)
    begins = _WORDS_AT + _LENGTH.size
    return Recording(executing, finished, raw[begins : begins + min(length, MAX_WORDS_BYTES)])
