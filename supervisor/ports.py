"""Whether the ports and the socket of the configuration are free, asked at once at the start.

The frontends bind them only when the models have settled, which is late to learn that a port is taken.
"""

import errno
import socket

from .wire import unix_socket
from .wire.status import AlreadyExists, FailedPrecondition


def require_free(grpc_port: int, rest_port: int, grpc_socket_path: str) -> None:
    """Raises PoolError naming the first port or socket that cannot be had."""
    for flag, port in (("port", grpc_port), ("rest_api_port", rest_port)):
        if port:
            _require_port(flag, port)
    if grpc_socket_path:
        unix_socket.require_free(grpc_socket_path)


def _require_port(flag: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - where TF Serving listens
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyExists(f"--{flag}={port}: the TCP port {port} is taken by another process") from error
            raise FailedPrecondition(f"--{flag}={port}: cannot listen on TCP port {port}: {error.strerror}") from error
