"""A large payload in the parts in which it came or was made: copied once, on its way out, and never joined. Pure.

It can be read like bytes, byte by byte and in slices, by whoever looks at its head; `bytes(payload)` joins it.
"""

import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, overload

PARTS_BYTES = 128 * 1024
"""From here on joining costs more than keeping parts."""

Buffer = Any  # bytes or a memoryview of bytes


class Parts:
    """The pieces must not be changed any more."""

    __slots__ = ("_ends", "pieces")

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self.pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(accumulate(map(len, self.pieces)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytes: ...

    def __getitem__(self, at: int | slice) -> int | bytes:
        if isinstance(at, slice):
            begin, end, step = at.indices(len(self))
            if step != 1:
                raise ValueError(f"a slice of parts: expected a step of 1, got {step}")
            return self._slice(begin, end)
        if at < 0:
            at += len(self)
        if not 0 <= at < len(self):
            raise IndexError(f"expected a place in {len(self)} bytes, got {at}")
        place = bisect.bisect_right(self._ends, at)
        piece = self.pieces[place]
        value: int = piece[at - self._ends[place]]  # from the end of the piece
        return value

    def _slice(self, begin: int, end: int) -> bytes:
        found = []
        place = bisect.bisect_right(self._ends, begin)
        while begin < end:
            start = self._ends[place] - len(self.pieces[place])
            found.append(bytes(self.pieces[place][begin - start : end - start]))
            begin = self._ends[place]
            place += 1
        return b"".join(found)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Parts | bytes):
            return len(self) == len(other) and bytes(self) == bytes(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


Payload = bytes | Parts


def gathered(pieces: Sequence[Buffer]) -> Payload:
    """The pieces as one payload: joined where that is cheap."""
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    return Parts(pieces) if sum(map(len, pieces)) >= PARTS_BYTES else b"".join(pieces)


def readable(payload: Payload) -> Payload | memoryview:
    """The same, for who looks at many of its bytes: the piece itself where there is but one, which is faster."""
    return payload.pieces[0] if isinstance(payload, Parts) and len(payload.pieces) == 1 else payload


def pieces_of(payload: Payload) -> Sequence[Buffer]:
    return payload.pieces if isinstance(payload, Parts) else (payload,)
