"""What a service manager is told, by a socket as systemd's."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpool.supervisor.service_manager import ServiceManager, ServiceSocket


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.settimeout(5)
        yield listener


def test_from_the_environment() -> None:
    environment = {"NOTIFY_SOCKET": "/run/s", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
    assert ServiceSocket.from_environment(environment, 7) == ServiceSocket("/run/s", 30.0)
    assert ServiceSocket.from_environment(environment, 8) == ServiceSocket("/run/s", 0.0), "it means another process"
    assert ServiceSocket.from_environment({"NOTIFY_SOCKET": "@s", "WATCHDOG_USEC": "x"}, 1) == ServiceSocket("@s", 0.0)
    assert ServiceSocket.from_environment({}, 1) == ServiceSocket()


def test_it_is_told(listener: socket.socket) -> None:
    manager = ServiceManager(ServiceSocket(listener.getsockname()))
    manager.ready()
    manager.ready()
    manager.stopping()
    assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_the_watchdog_hears_the_loop(listener: socket.socket) -> None:
    async def live() -> list[bytes]:
        manager = ServiceManager(ServiceSocket(listener.getsockname(), watchdog_s=0.02))
        manager.start()
        heard = [await asyncio.to_thread(listener.recv, 100) for _ in range(3)]
        manager.close()
        return heard

    assert asyncio.run(live()) == [b"WATCHDOG=1"] * 3


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0modelpool-test")
        ServiceManager(ServiceSocket("@modelpool-test")).ready()
        assert listener.recv(100) == b"READY=1"


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager(ServiceSocket(str(tmp_path / "none"))).ready()
    ServiceManager(ServiceSocket()).ready()
