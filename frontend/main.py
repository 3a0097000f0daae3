"""The entry of the frontend process: `python -m modelpool.frontend.main`, started by the supervisor. Main thread.

Standard input brings the FrontendSpec (a big-endian length of four bytes, then the encoded message) and stays open as
a lifeline: its end means that the supervisor is dead. SIGTERM and SIGINT are ignored, because a terminal sends Ctrl-C
to the whole process group and it is the supervisor that drains the frontend, by message.

Here it is decided which engine ends the protocols. As an Envoy the process goes on in `envoy_app`.
"""

import logging
import sys

from modelpool.supervisor.wire import lifeline
from modelpool.supervisor.wire.frontend_spec import Engine, FrontendSpec
from modelpool.supervisor.wire.log import configure, fields
from modelpool.supervisor.wire.status import PoolError

from . import envoy
from .frontend_spec import read_spec

log = logging.getLogger(__name__)

_STDIN_FD = 0
_FIRST = 1


def main() -> int:
    """The process's exit code: 0 after a drain, 1 after an error."""
    lifeline.die_with_parent(_STDIN_FD)
    lifeline.ignore_terminal_signals()
    configure("frontend")
    try:
        spec = read_spec(_STDIN_FD)
        configure(f"frontend:{spec.incarnation}", spec.log_level)
        failure: PoolError | None = None
        if spec.engine is not Engine.GRPCIO:
            try:
                envoy.become(spec)
            except PoolError as error:
                failure = error
        return _serve(spec, failure)
    except Exception:
        log.exception("frontend failed")
        return 1


def _serve(spec: FrontendSpec, failure: PoolError | None) -> int:
    """Serve by grpcio. `failure`: why this process is no Envoy; where it had to be one, it says so and ends."""
    import uvloop  # noqa: PLC0415 - an Envoy does not need what is imported here

    from .no_engine import NoEngine  # noqa: PLC0415
    from .session import Session  # noqa: PLC0415

    async def run() -> int:
        if failure is not None and spec.engine is Engine.ENVOY:
            return await Session(spec, _STDIN_FD, lambda *_: NoEngine(failure)).run()
        if failure is not None:
            level = logging.INFO if spec.incarnation == _FIRST else logging.DEBUG  # the first says it for all
            log.log(level, "gRPC and REST by grpcio and uvicorn %s", fields(why_not_envoy=failure.message))
        if spec.access_log:
            log.warning("there is no access log without Envoy %s", fields(access_log_file=spec.access_log))
        from .grpcio_engine import GrpcioEngine  # noqa: PLC0415

        return await Session(spec, _STDIN_FD, GrpcioEngine).run()

    code: int = uvloop.run(run())
    return code


if __name__ == "__main__":
    sys.exit(main())
