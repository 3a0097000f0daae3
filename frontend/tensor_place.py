"""Where the values of the biggest tensor lie in a serialized PredictRequest. Pure.

For whoever places the request in memory: TensorFlow takes a tensor as it lies there only where it is aligned, and
copies it otherwise. So a wrong answer costs nothing but that copy.
"""

from modelpool.supervisor.wire.parts import Payload, readable
from modelpool.supervisor.wire.varint import read_varint

_BYTES = 2
_FIXED_BYTES = {1: 8, 5: 4}
# PredictRequest.inputs, the value of its map's entry, and the one field of the TensorProto that holds the values.
_DEPTH = 3
_MAX_FIELDS = 64


def find(request: Payload) -> int:
    """Where the biggest field of the biggest field of the biggest field begins; 0 for what is no such message."""
    data = readable(request)
    begin, end = 0, len(data)
    try:
        for _ in range(_DEPTH):
            begin, end = _biggest(data, begin, end)
    except (ValueError, IndexError):
        return 0
    return begin


def _biggest(data: Payload | memoryview, at: int, end: int) -> tuple[int, int]:
    """Begin and end of the biggest length-delimited field. Raises ValueError, IndexError for what is no message."""
    biggest = (0, 0)
    for _ in range(_MAX_FIELDS):
        if at >= end:
            break
        tag, at = read_varint(data, at)
        wire_type = tag & 7
        if wire_type == _BYTES:
            size, begin = read_varint(data, at)
            at = begin + size
            if at > end:
                raise ValueError("a field ends behind its message")
            if size > biggest[1] - biggest[0]:
                biggest = (begin, at)
        elif wire_type == 0:
            _, at = read_varint(data, at)
        else:
            at += _FIXED_BYTES.get(wire_type, end)
    if biggest == (0, 0):
        raise ValueError("no field of bytes")
    return biggest
