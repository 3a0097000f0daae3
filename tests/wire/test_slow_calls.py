"""What slow calls say when a server does not put an end to them by themselves, as it promises."""

import socket
from collections.abc import Iterator

import pytest
from slow_calls import SlowCalls


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("localhost", 0)) as listening:
        yield listening


def test_a_server_that_closes_the_connection(server: socket.socket) -> None:
    with SlowCalls(server.getsockname()[1], 1) as slow:
        connection, _ = server.accept()
        connection.shutdown(socket.SHUT_WR)
        with connection, pytest.raises(ConnectionError, match="closed before any call had ended"):
            slow.wait_ended()


def test_a_server_that_says_nothing(server: socket.socket) -> None:
    with SlowCalls(server.getsockname()[1], 1, timeout_s=0.05) as slow, pytest.raises(TimeoutError):
        slow.wait_ended()
