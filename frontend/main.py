"""The entry of the frontend process: `python -m modelpool.frontend.main`, started by the supervisor. Main thread.

Standard input brings the FrontendSpec (a big-endian length of four bytes, then the encoded message) and stays open as
a lifeline: its end means that the supervisor is dead. SIGTERM and SIGINT are ignored, because a terminal sends Ctrl-C
to the whole process group and it is the supervisor that drains the frontend, by message.
"""

import logging
import sys

import uvloop

from modelpool.supervisor.wire import lifeline
from modelpool.supervisor.wire.log import configure
from modelpool.supervisor.wire.messages import FrontendSpec

from .frontend_spec import read_spec
from .grpcio_engine import GrpcioEngine
from .session import Session

log = logging.getLogger(__name__)

_STDIN_FD = 0


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


async def _run(spec: FrontendSpec) -> int:
    return await Session(spec, _STDIN_FD, GrpcioEngine).run()


if __name__ == "__main__":
    sys.exit(main())
