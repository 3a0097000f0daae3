"""Becomes the Envoy that a frontend becomes, with `bench_floor_app` in the place of the frontend's applications.

`bench_floor_server.py GRPC_PORT REST_PORT FOLDER`: in a private folder in which the file `REPLY` has the answer to all
calls. The configuration, the command line, the threads and the environment are made by the frontend's own code.
"""

import sys
from pathlib import Path

from modelpool.frontend import envoy, envoy_config
from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.frontend_spec import Engine, FrontendSpec
from modelpool.supervisor.wire.ids import Incarnation

REPLY = "reply"
_APP = "bench_floor_app"


def main() -> None:
    grpc_port, rest_port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
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
    envoy_config.APP_MODULE = _APP
    envoy.become(spec)


if __name__ == "__main__":
    main()
