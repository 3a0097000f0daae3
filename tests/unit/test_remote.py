"""Remote base paths through fsspec: looks, downloads, and what goes wrong with them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from modelpool.supervisor.source import Poll
from modelpool.supervisor.version_policy import All
from modelpool.supervisor.wire.status import Code, Status
from tests.unit.remote_world import Clock, FaultyFileSystem, emptied_store, entries, save, settled, source_of

UNSETTLED = "it has not been unchanged for 1 s"


@pytest.fixture
def store() -> Iterator[Any]:
    with emptied_store() as fs:
        yield fs


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_version_is_fetched_when_two_looks_agree(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock, "memory://base/m")
    found = source.poll()
    assert (found.versions, found.incomplete) == ({}, (1,))
    assert found.warnings == (f"Version 1 of servable m is not complete yet and is not taken: {UNSETTLED}",)
    clock.now_s += 1
    found = source.poll()
    assert (found.warnings, found.incomplete) == ((), ())
    path = Path(found.versions[1])
    assert path.parent.parent.parent == tmp_path / "cache"
    assert path.name == f"1-{found.fingerprints[1]}"
    assert (path / "saved_model.pb").read_bytes() == b"graph"
    assert (path / "variables" / "variables.data-00000-of-00001").read_bytes() == b"data"
    assert source.poll() == found
    save(store, "/base/m/2")
    assert set(settled(source, clock).versions) == {2}
    assert set(source.poll().available) == {1, 2}


def test_local_file_system_of_fsspec(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "base" / "7" / "variables").mkdir(parents=True)
    (tmp_path / "base" / "7" / "saved_model.pb").write_text("graph")
    (tmp_path / "base" / "8").write_text("a file is no version")
    found = settled(source_of(tmp_path, clock, f"local://{tmp_path}/base", All()), clock)
    assert (Path(found.versions[7]) / "saved_model.pb").read_text() == "graph"
    assert set(found.versions) == {7}


def test_marker(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    store.pipe("/base/m/1/_SUCCESS", b"")
    save(store, "/base/m/2")
    source = source_of(tmp_path, clock, marker="_SUCCESS")
    found = source.poll()
    assert (set(found.versions), found.incomplete) == ({1}, (2,))
    store.pipe("/base/m/2/_SUCCESS", b"")
    assert set(source.poll().versions) == {2}


def test_only_what_the_policy_wants_is_fetched(tmp_path: Path, clock: Clock, store: Any) -> None:
    for version in (1, 2, 3):
        save(store, f"/base/m/{version}")
    source = source_of(tmp_path, clock)
    assert source.poll().incomplete == (3,)
    clock.now_s += 1
    store.pipe("/base/m/3/more", b"")  # still being copied: an older one takes its place
    assert source.poll().incomplete == (2, 3)
    clock.now_s += 1
    store.pipe("/base/m/3/more", b"more")
    assert set(source.poll().versions) == {2}
    clock.now_s += 1
    assert set(source.poll().versions) == {3}
    assert set(source.poll().available) == {2, 3}


def test_a_broken_download_leaves_nothing(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    FaultyFileSystem.faults["get_file"] = ConnectionResetError("reset by peer")
    text = "Could not download from base path faulty://base/m for servable m: ConnectionResetError: reset by peer"
    assert settled(source, clock) == Poll("m", {}, error=Status(Code.UNAVAILABLE, text))
    assert entries(tmp_path) == []
    FaultyFileSystem.faults.clear()
    assert set(source.poll().versions) == {1}


def test_a_short_download_does_not_count(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    FaultyFileSystem.faults["get_file"] = lambda path: os.truncate(path, 1)
    error = settled(source, clock).error
    assert error is not None
    assert error.code is Code.UNAVAILABLE
    assert "ended early: 1 of " in error.message
    assert entries(tmp_path) == []


def test_a_version_that_changes_while_it_is_fetched(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    FaultyFileSystem.faults["get_file"] = lambda _: store.pipe("/base/m/1/late", b"late")
    found = settled(source, clock)
    assert (found.versions, found.incomplete, found.error) == ({}, (1,), None)
    assert found.warnings[0].endswith("it changed while it was fetched")
    FaultyFileSystem.faults["get_file"] = lambda _: store.rm("/base/m/1", recursive=True)
    assert settled(source, clock).incomplete == (1,)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (PermissionError("no key"), Status(Code.PERMISSION_DENIED, "PermissionError: no key")),
        (TimeoutError(), Status(Code.DEADLINE_EXCEEDED, "TimeoutError")),
        (OSError(5, "Input/output error"), Status(Code.UNAVAILABLE, "OSError: Input/output error")),
        (
            RuntimeError("what a client library raises"),
            Status(Code.UNAVAILABLE, "RuntimeError: what a client library raises"),
        ),
    ],
)
def test_errors_change_nothing(tmp_path: Path, clock: Clock, store: Any, raised: Exception, expected: Status) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    before = settled(source, clock)
    FaultyFileSystem.faults["ls"] = raised
    text = f"Could not read base path faulty://base/m for servable m: {expected.message}"
    assert source.poll() == Poll("m", {}, error=Status(expected.code, text))
    FaultyFileSystem.faults.clear()
    assert source.poll() == before


def test_a_version_that_cannot_be_listed(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)

    FaultyFileSystem.faults["find"] = PermissionError("no key")
    text = "Could not read version directory 1 of base path faulty://base/m for servable m: PermissionError: no key"
    assert source.poll() == Poll("m", {}, error=Status(Code.PERMISSION_DENIED, text))


def test_a_part_of_a_version_that_cannot_be_listed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base" / "1" / "variables").mkdir(parents=True)
    (tmp_path / "base" / "1" / "saved_model.pb").write_text("graph")
    (tmp_path / "base" / "1" / "variables" / "variables.index").write_text("index")
    (tmp_path / "base" / "1" / "variables" / "variables.data-00000-of-00001").write_text("data")
    real = LocalFileSystem.ls

    def away(fs: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.endswith("/variables"):
            raise OSError(errno.EIO, "Input/output error")
        return real(fs, path, *args, **kwargs)

    source = source_of(tmp_path, clock, f"local://{tmp_path}/base")
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "ls", away)
        text = (
            f"Could not read version directory 1 of base path local://{tmp_path}/base for servable m: "
            "OSError: Input/output error"
        )
        assert settled(source, clock) == Poll("m", {}, error=Status(Code.UNAVAILABLE, text))
    found = settled(source, clock)
    assert sorted(os.listdir(found.versions[1])) == ["saved_model.pb", "variables"]


def test_a_file_system_that_cannot_be_opened(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_endpoint(*_: Any, **__: Any) -> None:
        raise RuntimeError("no endpoint is configured")

    monkeypatch.setattr("modelpool.supervisor.remote.url_to_fs", no_endpoint)
    text = (
        "Base path faulty://base/m for servable m: file system 'faulty://' cannot be used: "
        "RuntimeError: no endpoint is configured"
    )
    assert source_of(tmp_path, clock).poll().error == Status(Code.UNAVAILABLE, text)


def test_http_statuses_of_client_libraries(tmp_path: Path, clock: Clock) -> None:
    error = RuntimeError("denied")
    error.status = 401  # type: ignore[attr-defined]
    FaultyFileSystem.faults["ls"] = error
    found = source_of(tmp_path, clock).poll().error
    FaultyFileSystem.faults.clear()
    assert found is not None
    assert found.code is Code.UNAUTHENTICATED


def test_missing_base_path(tmp_path: Path, clock: Clock, store: Any) -> None:
    text = "Could not find base path faulty://base/m for servable m with error NOT_FOUND: faulty://base/m not found"
    assert source_of(tmp_path, clock).poll() == Poll("m", {}, error=Status(Code.NOT_FOUND, text))


@pytest.mark.parametrize(
    ("base_path", "ending"),
    [
        ("nosuch://b/m", "is not supported"),
        ("http://b/m", "cannot list directories"),
    ],
)
def test_schemes_that_cannot_be_used(tmp_path: Path, clock: Clock, base_path: str, ending: str) -> None:
    scheme = base_path.split(":", maxsplit=1)[0]
    text = f"Base path {base_path} for servable m: file system '{scheme}://' {ending}"
    assert source_of(tmp_path, clock, base_path).poll().error == Status(Code.UNIMPLEMENTED, text)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("gcs", "gcs")])
def test_a_missing_library_names_the_extra(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str
) -> None:
    def not_installed(*_: Any, **__: Any) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("modelpool.supervisor.remote.url_to_fs", not_installed)
    text = (
        f"Base path {scheme}://b/m for servable m: file system '{scheme}://' needs a library that is not installed: "
        f"pip install modelpool[{extra}]"
    )
    assert source_of(tmp_path, clock, f"{scheme}://b/m").poll().error == Status(Code.UNIMPLEMENTED, text)


def test_a_watched_version_is_fetched_again_when_it_has_changed(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    before = settled(source, clock)
    store.pipe("/base/m/1/saved_model.pb", b"better")
    assert settled(source, clock) == before
    source.watch([1])
    assert source.poll() == before
    clock.now_s += 1
    after = source.poll()
    assert after.fingerprints != before.fingerprints
    assert (Path(after.versions[1]) / "saved_model.pb").read_bytes() == b"better"
