"""The FrontendSpec as it comes to a process: a big-endian length of four bytes, then the encoded message. Blocking."""

import os
import struct

from modelpool.supervisor.wire import codec
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.status import InvalidArgument

_LENGTH = struct.Struct(">I")
_MAX_SPEC_BYTES = 1 << 20


def read_spec(fd: int) -> FrontendSpec:
    """The spec that the supervisor writes first. Raises InvalidArgument for anything else."""
    (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
    if length > _MAX_SPEC_BYTES:
        raise InvalidArgument(f"frontend spec: expected at most {_MAX_SPEC_BYTES} bytes, got {length}")
    spec = codec.decode(_read_exactly(fd, length))
    if not isinstance(spec, FrontendSpec):
        raise InvalidArgument(f"frontend spec: expected a FrontendSpec, got {type(spec).__name__}")
    return spec


def _read_exactly(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, size - len(parts))
        if not part:
            raise InvalidArgument(f"frontend spec: expected {size} bytes on standard input, got {len(parts)}")
        parts += part
    return bytes(parts)
