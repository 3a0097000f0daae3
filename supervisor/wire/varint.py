"""Protobuf's variable-length integers, for what is written and read without the library. Pure."""

from typing import Any

_MAX_SHIFT = 63
_SMALL = [bytes((value,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """The bytes of a number, which is not negative."""
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: Any, at: int) -> tuple[int, int]:
    """The number that begins at `at` of what gives bytes by their index, and where it ends.

    Raises IndexError where the bytes end before it does, ValueError for one that is too long.
    """
    value = shift = 0
    while shift <= _MAX_SHIFT:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than ten bytes")
