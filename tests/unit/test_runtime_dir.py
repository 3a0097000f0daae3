"""The runtime directory: private, locked, cleaned of what a dead pool left."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpool.supervisor import runtime_dir
from modelpool.supervisor.runtime_dir import RuntimeDir
from modelpool.supervisor.wire.status import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture
def base() -> Iterator[Path]:
    """A short path: a unix socket's address has room for little more."""
    with tempfile.TemporaryDirectory(prefix="mp", dir="/tmp") as folder:
        yield Path(folder)


def leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_it_is_private_and_goes_without_a_trace(base: Path) -> None:
    directory = RuntimeDir(base / "pool")
    assert os.stat(base / "pool").st_mode & 0o777 == 0o700
    leave_socket(base / "pool" / "w12")
    directory.remove()
    assert not (base / "pool").exists()


def test_a_live_pool_keeps_others_out(base: Path) -> None:
    directory = RuntimeDir(base / "pool")
    with pytest.raises(AlreadyExists, match="belongs to a running pool"):
        RuntimeDir(base / "pool")
    directory.remove()


def test_the_lock_of_a_pool_that_ends_just_now_is_not_taken_for_ours(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = RuntimeDir(base / "pool")
    flock = fcntl.flock

    def late_flock(lock: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        ending.remove()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late_flock)
    directory = RuntimeDir(base / "pool")
    with pytest.raises(AlreadyExists, match="belongs to a running pool"):
        RuntimeDir(base / "pool")
    directory.remove()
    assert not (base / "pool").exists()


def test_sockets_of_a_dead_pool_are_cleared_and_nothing_else(base: Path) -> None:
    (base / "pool").mkdir(mode=0o700)
    leave_socket(base / "pool" / "control")
    leave_socket(base / "pool" / "w7")
    leave_socket(base / "pool" / "a7")
    (base / "pool" / "c7.json").write_text("{}")
    (base / "pool" / "mw7").symlink_to("/proc/1/fd/999")
    (base / "pool" / "mf7").symlink_to("/proc/1/fd/999")
    (base / "pool" / "mx7").symlink_to("/proc/1/fd/999")
    leave_socket(base / "pool" / "somebody-elses")
    (base / "pool" / "w8").write_text("a file")
    directory = RuntimeDir(base / "pool")
    assert sorted(os.listdir(base / "pool")) == ["lock", "mx7", "somebody-elses", "w8"]
    directory.remove()
    assert sorted(os.listdir(base / "pool")) == ["mx7", "somebody-elses", "w8"]


def test_a_path_that_is_too_long_for_its_sockets_is_refused_at_the_start(base: Path) -> None:
    with pytest.raises(InvalidArgument, match="shorter --runtime_dir"):
        RuntimeDir(base / ("x" * 95))


def test_a_pool_is_found_by_port_by_folder_or_by_being_the_only_one(base: Path) -> None:
    with pytest.raises(NotFound, match="no pool runs below"):
        runtime_dir.find_pool(base, "", None)
    first = RuntimeDir(base / "8500")
    assert runtime_dir.find_pool(base, "", None) == base / "8500"
    second = RuntimeDir(base / "9500")
    with pytest.raises(AlreadyExists, match=r"several pools run \(8500, 9500\)"):
        runtime_dir.find_pool(base, "", None)
    assert runtime_dir.find_pool(base, "", 9500) == base / "9500"
    assert runtime_dir.find_pool(base, str(base / "8500"), None) == base / "8500"
    second.remove()
    with pytest.raises(NotFound, match="no pool runs with the runtime directory"):
        runtime_dir.find_pool(base, "", 9500)
    first.remove()


def test_a_pool_is_named_by_its_port() -> None:
    assert runtime_dir.default_path(Path("/base"), 8500, 8501) == Path("/base/8500")
    assert runtime_dir.default_path(Path("/base"), 0, 8501) == Path("/base/8501")
    assert runtime_dir.default_path(Path("/base"), 0, 0) == Path(f"/base/pid-{os.getpid()}")


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_directory_that_others_can_use_is_refused_and_left_alone(base: Path, mode: int) -> None:
    (base / "pool").mkdir()
    (base / "pool").chmod(mode)
    with pytest.raises(FailedPrecondition, match="to be a directory of mode 0700"):
        RuntimeDir(base / "pool")
    assert (base / "pool").stat().st_mode & 0o777 == mode


def test_a_directory_that_was_there_before_stays(base: Path) -> None:
    (base / "pool").mkdir(mode=0o700)
    RuntimeDir(base / "pool").remove()
    assert list((base / "pool").iterdir()) == []


def test_a_link_is_no_directory_of_ours(base: Path) -> None:
    (base / "real").mkdir(mode=0o700)
    (base / "pool").symlink_to(base / "real")
    with pytest.raises(FailedPrecondition):
        RuntimeDir(base / "pool")
