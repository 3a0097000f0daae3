"""The entry of the frontend process: `python -m modelpool.frontend.main`, started by the supervisor. Main thread.

Standard input brings the FrontendSpec (a big-endian length of four bytes, then the encoded message) and stays open as
a lifeline: its end means that the supervisor is dead. SIGTERM and SIGINT are ignored, because a terminal sends Ctrl-C
to the whole process group and it is the supervisor that drains the frontend, by message.
"""

import logging
import os
import struct
import sys

import uvloop

from modelpool.supervisor.wire import codec, lifeline
from modelpool.supervisor.wire.log import configure
from modelpool.supervisor.wire.messages import FrontendSpec
from modelpool.supervisor.wire.status import InvalidArgument

from .session import Session

log = logging.getLogger(__name__)

_STDIN_FD = 0
_LENGTH = struct.Struct(">I")
_MAX_SPEC_BYTES = 1 << 20


def main() -> int:
    """The process's exit code: 0 after a drain, 1 after an error."""
    lifeline.die_with_parent(_STDIN_FD)
    lifeline.ignore_terminal_signals()
    configure("frontend")
    try:
        spec = read_spec(_STDIN_FD)
        configure(f"frontend:{spec.incarnation}", spec.log_level)
        code: int = uvloop.run(_run(spec))
    except Exception:
        log.exception("frontend failed")
        return 1
    return code


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


async def _run(spec: FrontendSpec) -> int:
    return await Session(spec, _STDIN_FD).run()


if __name__ == "__main__":
    sys.exit(main())
