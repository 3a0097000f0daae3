"""Whether a path is free for a unix socket to be bound there. Used at the start by the supervisor and a frontend.

A socket file that nobody listens on is stale and may be replaced; anything else in its place is an error. Blocking,
for `_CONNECT_TIMEOUT_S` at most. Standard library only.
"""

import os
import socket
import stat

from .status import AlreadyExists, FailedPrecondition

# sun_path holds 108 bytes with its final NUL (unix(7)).
MAX_PATH_BYTES = 107
_CONNECT_TIMEOUT_S = 1.0


def require_free(path: str, flag: str = "grpc_socket_path") -> None:
    """Raises AlreadyExists when another process listens there, FailedPrecondition when no socket can be there.

    The texts name `flag`, the path and the reason. A stale socket file is free, and left where it is.
    """
    given = f"--{flag}={path}"
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise FailedPrecondition(f"{given}: expected at most {MAX_PATH_BYTES} bytes, got {size}")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        _require_folder(path, given)
        return
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{given}: {error}") from error
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"{given}: expected a socket or nothing there, got another file")
    if is_live(path):
        raise AlreadyExists(f"{given}: another process listens on this socket")


def is_live(path: str) -> bool:
    """Whether somebody listens on the socket at `path`; also when it is too busy to let us in, or lets nobody in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def _require_folder(path: str, given: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FailedPrecondition(f"{given}: cannot create a socket in {folder}")
