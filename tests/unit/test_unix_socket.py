"""A path for a unix socket: free, stale, taken, or impossible. Real sockets in a folder of the test."""

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpool.supervisor.wire import unix_socket
from modelpool.supervisor.wire.status import AlreadyExists, FailedPrecondition


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as a unix socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="mp", dir="/tmp") as name:
        yield Path(name)


def test_nothing_there_and_a_stale_file_are_free(folder: Path) -> None:
    path = folder / "s"
    unix_socket.require_free(str(path))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert not unix_socket.is_live(str(path))
    unix_socket.require_free(str(path))
    assert path.is_socket(), "the stale file is left to whoever binds"


def test_a_listener_with_a_full_backlog_is_live_and_does_not_block(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        started_s = time.monotonic()
        with pytest.raises(AlreadyExists) as caught:
            unix_socket.require_free(path)
        assert time.monotonic() - started_s < 5.0
    assert caught.value.message == f"--grpc_socket_path={path}: another process listens on this socket"


def test_a_path_that_no_socket_can_have(folder: Path) -> None:
    (folder / "file").write_text("precious")
    for path, reason in (
        (folder / "file", "expected a socket or nothing there, got another file"),
        (folder / "no" / "s", f"cannot create a socket in {folder / 'no'}"),
        (folder / "file" / "s", "Not a directory"),
        (folder / ("\u00e4" * 60), "expected at most 107 bytes, got "),
    ):
        with pytest.raises(FailedPrecondition, match=f"^--grpc_socket_path={path}: .*{reason}"):
            unix_socket.require_free(str(path))


def test_a_path_of_the_greatest_length_is_free(folder: Path) -> None:
    path = str(folder / ("x" * (unix_socket.MAX_PATH_BYTES - len(str(folder)) - 1)))
    unix_socket.require_free(path)
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen(1)
        assert unix_socket.is_live(path)
