"""What the supervisor tells the service manager that started it: ready, stopping, and that its loop turns.

The protocol of sd_notify(3): datagrams to the socket that systemd names in the environment. Without one, nothing is
said. In the event loop.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from .wire.log import fields

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceSocket:
    """`address` is "" for none. `watchdog_s`: the manager kills a service that is silent for so long, 0 for never."""

    address: str = ""
    watchdog_s: float = 0.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Self:
        """NOTIFY_SOCKET, and WATCHDOG_USEC where WATCHDOG_PID means this process."""
        usec = environment.get("WATCHDOG_USEC", "0")
        ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(environment.get("NOTIFY_SOCKET", ""), int(usec) / 1e6 if ours and usec.isdigit() else 0.0)


class ServiceManager:
    """Tells it at the right times; a manager that does not listen is told nothing."""

    def __init__(self, where: ServiceSocket) -> None:
        self._address = where.address.replace("@", "\0", 1) if where.address.startswith("@") else where.address
        self._period_s = where.watchdog_s / 2
        self._is_ready = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Say from now on, twice in the time that the manager waits, that the loop turns."""
        if self._address and self._period_s:
            self._beat()

    def ready(self) -> None:
        """The ports are open. Said once."""
        if not self._is_ready:
            self._is_ready = True
            self._say("READY=1")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._say("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._beat)

    def _say(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender:
                sender.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("service manager not told %s", fields(what=text, error=error))
