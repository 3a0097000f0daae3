"""The TCP ports of a pool: taken at the start and held to its end, so that they are its own and nobody else's.

Frontends share a port by SO_REUSEPORT, and so could another server of the same user, in silence. The supervisor
therefore binds each port first, without that option, which fails when anybody has it; then, without letting go of it,
it stops listening and allows the sharing. From then on the kernel lets nobody in who does not ask to share and belongs
to the same user, and another pool asks as this one did: for the port alone. Linux; standard library only.
"""

import contextlib
import errno
import socket
from functools import partial

from .wire import unix_socket
from .wire.all_addresses import on_all_addresses
from .wire.status import AlreadyExists, FailedPrecondition


class Reservation:
    """The ports that `reserve` has taken; they take no connection and are held until `close`."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    def take(self, flag: str, port: int) -> None:
        """Raises PoolError naming the flag and the port when it cannot be had."""
        try:
            self._held.enter_context(_placeholder(port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyExists(f"--{flag}={port}: the TCP port {port} is taken by another process") from error
            raise FailedPrecondition(f"--{flag}={port}: cannot listen on TCP port {port}: {error.strerror}") from error

    def close(self) -> None:
        self._held.close()


def reserve(grpc_port: int, rest_port: int, grpc_socket_path: str) -> Reservation:
    """Take the ports, and see whether the unix socket can be had. Raises PoolError naming the first that cannot."""
    reservation = Reservation()
    try:
        for flag, port in (("port", grpc_port), ("rest_api_port", rest_port)):
            if port:
                reservation.take(flag, port)
        if grpc_socket_path:
            unix_socket.require_free(grpc_socket_path)
    except BaseException:
        reservation.close()
        raise
    return reservation


def _placeholder(port: int) -> socket.socket:
    """A socket that holds `port` on all addresses and does not listen. Raises OSError."""
    return on_all_addresses(partial(_held, port=port))


def _held(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family is socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # What is left of a former server's connections (TIME_WAIT) is in nobody's way; one that listens is.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
        holder.listen(1)
        holder.shutdown(socket.SHUT_RDWR)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        holder.close()
        raise
    return holder
