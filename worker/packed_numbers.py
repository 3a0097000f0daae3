"""Packed fields of whole numbers, protobuf's varints one behind the other: to arrays and back, by numpy. Pure.

So many are taken at a time: what numpy makes in between takes forty times the memory of the numbers, and is several
times as fast where the cache holds it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

_AT_A_TIME = 64 * 1024
"""Octets of those that are read, numbers of those that are written."""
_LONGEST = 10
_TOO_LONG = f"a number of more than {_LONGEST} bytes"


def unpack(raw: Any) -> npt.NDArray[np.uint64]:
    """The numbers of a packed field, a buffer. Raises ValueError for what is none."""
    octets = np.frombuffer(raw, np.uint8)
    more = octets >= 0x80
    if not more.any():
        return octets.astype(np.uint64)
    if more[-1]:
        raise ValueError("the last number has no end")
    if len(octets) <= _AT_A_TIME:
        return _unpacked(octets, more)
    numbers = np.empty(len(octets) - np.count_nonzero(more), np.uint64)
    at = done = 0
    while at < len(octets):
        end = at + _AT_A_TIME
        while end < len(octets) and more[end - 1]:
            end += 1
            if end - at > _AT_A_TIME + _LONGEST:
                raise ValueError(_TOO_LONG)
        some = _unpacked(octets[at:end], more[at:end])
        numbers[done : done + len(some)] = some
        at, done = end, done + len(some)
    return numbers


def _unpacked(octets: npt.NDArray[np.uint8], more: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Of whole numbers. `more`: which octets are not the last of their number."""
    ends = np.flatnonzero(~more)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError(_TOO_LONG)
    place = np.arange(len(octets)) - np.repeat(starts, lengths)
    bits = (octets & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(bits, starts)


def pack(values: npt.NDArray[Any]) -> bytes:
    """Whole numbers (one dimension) as a packed field; negative ones take ten bytes."""
    if len(values) <= _AT_A_TIME:
        return _packed(values)
    return b"".join([_packed(values[at : at + _AT_A_TIME]) for at in range(0, len(values), _AT_A_TIME)])


def _packed(values: npt.NDArray[Any]) -> bytes:
    numbers = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
    if not len(numbers):
        return b""
    width = max(1, -(-int(numbers.max()).bit_length() // 7))
    if width == 1:
        return numbers.astype(np.uint8).tobytes()
    shifts = np.arange(0, 7 * width, 7, dtype=np.uint64)
    groups = (numbers[:, None] >> shifts).astype(np.uint8) & np.uint8(0x7F)
    lengths = width - np.argmax((groups != 0)[:, ::-1], axis=1)
    lengths[numbers == 0] = 1
    place = np.arange(width)
    groups[place < (lengths - 1)[:, None]] |= np.uint8(0x80)
    packed: bytes = groups[place < lengths[:, None]].tobytes()
    return packed
