"""The unix socket file of `--grpc_socket_path`: taken over when stale, refused when alive, removed at the end.

Blocking calls on a local socket only; before the server starts and after it has ended.
"""

import contextlib
import os
import socket
import stat

from modelpool.supervisor.wire.sockets import MAX_SOCKET_PATH_BYTES

from .bind_error import BindFailed

_CONNECT_TIMEOUT_S = 1.0


def claim(path: str) -> None:
    """Make `path` free to be bound: removes a socket file that nobody listens on. Raises BindFailed."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise BindFailed(f"grpc_socket_path: at most {MAX_SOCKET_PATH_BYTES} bytes, got {path!r}")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise BindFailed(f"grpc_socket_path: cannot use {path!r}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise BindFailed(f"grpc_socket_path: {path!r} exists and is not a socket")
    if _is_alive(path):
        raise BindFailed(f"grpc_socket_path: {path!r} is in use by another process")
    remove(path)


def remove(path: str) -> None:
    """Remove the socket file; without effect when it is gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
