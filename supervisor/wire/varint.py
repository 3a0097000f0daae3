"""Protobuf's variable-length integers, for what is written without the library. Pure."""

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
