"""The unix socket file of `--grpc_socket_path`: taken over when stale, refused when alive, removed at the end.

Blocking calls on a local socket only; before the server starts and after it has ended.
"""

import contextlib
import os

from modelpool.supervisor.wire import unix_socket
from modelpool.supervisor.wire.status import PoolError

from .bind_error import BindFailed


def claim(path: str) -> None:
    """Make `path` free to be bound: removes a socket file that nobody listens on. Raises BindFailed."""
    try:
        unix_socket.require_free(path)
    except PoolError as error:
        raise BindFailed(error.message) from error
    remove(path)


def remove(path: str) -> None:
    """Remove the socket file; without effect when it is gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)
