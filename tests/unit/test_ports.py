"""Taken ports and sockets are errors at the start that name them."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelpool.supervisor import ports
from modelpool.supervisor.wire.status import AlreadyExists, FailedPrecondition


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        yield taken


def test_a_taken_port_is_named_with_its_flag(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(AlreadyExists, match=f"--port={port}: the TCP port {port} is taken"):
        ports.reserve(port, 0, "")
    with pytest.raises(AlreadyExists, match=f"--rest_api_port={port}: "):
        ports.reserve(0, port, "")


def test_a_port_that_would_be_shared_is_taken(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(AlreadyExists):
        ports.reserve(listener.getsockname()[1], 0, "")


def _bind(port: int, *options: int) -> socket.socket:
    sharer = socket.socket()
    try:
        for option in options:
            sharer.setsockopt(socket.SOL_SOCKET, option, 1)
        sharer.bind(("127.0.0.1", port))
        sharer.listen(1)
    except OSError:
        sharer.close()
        raise
    return sharer


def test_a_port_that_is_held_is_for_the_frontends_alone(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with closing(ports.reserve(port, 0, "")):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for options in ((), (socket.SO_REUSEADDR,)):
            with pytest.raises(OSError, match="in use"):
                _bind(port, *options)
        with pytest.raises(AlreadyExists):
            ports.reserve(port, 0, "")
        with _bind(port, socket.SO_REUSEPORT), _bind(port, socket.SO_REUSEPORT):
            socket.create_connection(("127.0.0.1", port)).close()
    # Also with what the connection leaves behind.
    ports.reserve(port, 0, "").close()


def test_a_port_is_let_go_of_when_the_next_cannot_be_had(listener: socket.socket) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = other.getsockname()[1]
    with pytest.raises(AlreadyExists):
        ports.reserve(free, listener.getsockname()[1], "")
    ports.reserve(free, 0, "").close()


def test_a_live_socket_is_taken_and_a_stale_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(1)
        with pytest.raises(AlreadyExists, match="another process listens on this socket"):
            ports.reserve(0, 0, str(path)).close()
    ports.reserve(0, 0, str(path)).close()


def test_a_file_in_the_place_of_the_socket_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FailedPrecondition, match="expected a socket or nothing there"):
        ports.reserve(0, 0, str(tmp_path / "file"))


def test_a_socket_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot create a socket in"):
        ports.reserve(0, 0, str(tmp_path / "missing" / "grpc.sock"))
