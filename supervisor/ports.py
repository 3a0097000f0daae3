"""Whether the ports and the socket of the configuration are free, asked at once at the start.

The frontends bind them only when the models have settled, which is late to learn that a port is taken.
"""

import errno
import os
import socket
import stat

from .wire.status import AlreadyExists, FailedPrecondition, PoolError


def require_free(grpc_port: int, rest_port: int, grpc_socket_path: str) -> None:
    """Raises PoolError naming the first port or socket that cannot be had."""
    for flag, port in (("port", grpc_port), ("rest_api_port", rest_port)):
        if port:
            _require_port(flag, port)
    if grpc_socket_path:
        _require_socket(grpc_socket_path)


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


def _require_socket(path: str) -> None:
    """A socket file that nobody listens on is stale and will be replaced; anything else in its place is an error."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        _require_folder(path)
        return
    except OSError as error:
        raise FailedPrecondition(f"--grpc_socket_path={path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"--grpc_socket_path={path}: expected a socket or nothing there, got another file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            raise _taken(path) from None
        except OSError:
            return
    raise _taken(path)


def _require_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FailedPrecondition(f"--grpc_socket_path={path}: cannot create a socket in {folder}")


def _taken(path: str) -> PoolError:
    return AlreadyExists(f"--grpc_socket_path={path}: another process listens on this socket")
