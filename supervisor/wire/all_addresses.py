"""A TCP socket on all addresses of this host, IPv6 and IPv4, as TF Serving listens. Supervisor and frontends."""

import errno
import socket
from collections.abc import Callable

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def on_all_addresses(make: Callable[[socket.AddressFamily, str], socket.socket]) -> socket.socket:
    """What `make` gives for IPv6's address of all, or, on a host without IPv6, for IPv4's.

    `make` binds a socket of the family to the address; on one of IPv6 it turns IPV6_V6ONLY off. Its OSError is raised.
    """
    try:
        return make(socket.AF_INET6, "::")
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        return make(socket.AF_INET, "0.0.0.0")  # noqa: S104 - all of them are meant
