"""An Envoy as a frontend is one, with an application of the benches in the place of the frontend's.

`running` has one up. `bench_floor_server.py APP GRPC_PORT REST_PORT FOLDER` becomes it, in that private folder, with
the module APP (`bench_floor_app`, `bench_floor_chain_app`). The configuration, the command line, the threads and the
environment are made by the frontend's own code.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench_server import POLL_S, SCRIPTS, START_WITHIN_S, Server, free_port

from modelpool.frontend import envoy, envoy_config
from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.frontend_spec import Engine, FrontendSpec
from modelpool.supervisor.wire.ids import Incarnation

APP, CHAIN_APP = "bench_floor_app", "bench_floor_chain_app"


def server_of(name: str, app: str, folder: Path) -> Server:
    """One that is not started yet."""
    port, rest_port = free_port(), free_port()
    command = [sys.executable, str(SCRIPTS / "bench_floor_server.py"), app, str(port), str(rest_port), str(folder)]
    return Server(name, port, command, folder / "log")


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    """From when it listens on."""
    until = time.monotonic() + START_WITHIN_S
    with server.started() as process:
        while not server.listens():
            server.require_life(process)
            if time.monotonic() > until:
                raise SystemExit(f"{server.name} does not listen")
            time.sleep(POLL_S)
        yield


def main() -> None:
    app, grpc_port, rest_port, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    spec = FrontendSpec(
        Incarnation(1),
        sockets.control_endpoint(folder),
        grpc_port,
        rest_port,
        grpc_socket_path="",
        rest_timeout_s=30.0,
        max_request_bytes=(1 << 31) - 1,
        log_level="INFO",
        engine=Engine.ENVOY,
    )
    envoy_config.APP_MODULE = app
    envoy.become(spec)


if __name__ == "__main__":
    main()
