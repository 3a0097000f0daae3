"""Taken ports and sockets are errors at the start that name them."""

import socket
from collections.abc import Iterator
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
        ports.require_free(port, 0, "")
    with pytest.raises(AlreadyExists, match=f"--rest_api_port={port}: "):
        ports.require_free(0, port, "")


def test_a_port_that_would_be_shared_is_taken(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(AlreadyExists):
        ports.require_free(listener.getsockname()[1], 0, "")


def test_a_live_socket_is_taken_and_a_stale_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(1)
        with pytest.raises(AlreadyExists, match="another process listens on this socket"):
            ports.require_free(0, 0, str(path))
    ports.require_free(0, 0, str(path))


def test_a_file_in_the_place_of_the_socket_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FailedPrecondition, match="expected a socket or nothing there"):
        ports.require_free(0, 0, str(tmp_path / "file"))


def test_a_socket_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot create a socket in"):
        ports.require_free(0, 0, str(tmp_path / "missing" / "grpc.sock"))
