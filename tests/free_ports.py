"""TCP ports for the servers that tests start, several test processes side by side."""

import contextlib
import itertools
import os
import socket

# Below those that the kernel hands out for outgoing connections, which could take one before its server does.
_FIRST, _COUNT = 10_000, 22_000
# Test processes that run at the same time begin at places of their own.
_own = os.getpid() * 250
_given = itertools.count()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has bound, and that no test beside this one will be given for a good while."""
    found: list[int] = []
    while len(found) < count:
        port = _FIRST + (_own + next(_given)) % _COUNT
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            found.append(port)
    return found
