"""The cache of remote base paths: copies that are there, gone or in the way, pools that share it, what is pruned."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor.version_policy import All
from modelpool.supervisor.wire.status import Code, Status
from tests.unit.remote_world import Clock, FaultyFileSystem, emptied_store, entries, save, settled, source_of


@pytest.fixture
def store() -> Iterator[Any]:
    with emptied_store() as fs:
        yield fs


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_cached_copy_is_taken_at_first_sight(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    path = settled(source_of(tmp_path, clock), clock).versions[1]
    FaultyFileSystem.faults["get_file"] = ConnectionError("not to be fetched again")
    assert source_of(tmp_path, clock).poll().versions == {1: path}


def test_a_copy_that_somebody_removed_is_fetched_again(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source = source_of(tmp_path, clock)
    path = settled(source, clock).versions[1]
    shutil.rmtree(tmp_path / "cache")
    clock.now_s += 1
    assert source.poll().versions == {1: path}
    assert (Path(path) / "saved_model.pb").exists()


def test_a_cache_that_cannot_be_used(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    (tmp_path / "cache").write_text("no folder")
    cause = "NotADirectoryError: Not a directory"
    text = f"Could not use cache {tmp_path}/cache for servable m: {cause}"
    assert settled(source_of(tmp_path, clock), clock).error == Status(Code.FAILED_PRECONDITION, text)


def test_names_cannot_leave_the_cache(tmp_path: Path, clock: Clock, store: Any) -> None:
    store.store["/base/m/1/../../x"] = store.open("/other", "wb")
    error = source_of(tmp_path, clock).poll().error
    assert error is not None
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message.endswith("holds a file that cannot be stored locally: '../../x'")


def test_prune_keeps_what_is_named_and_what_others_use(tmp_path: Path, clock: Clock, store: Any) -> None:
    for version in (1, 2, 3):
        save(store, f"/base/m/{version}")
    source, other = (source_of(tmp_path, clock, policy=All()) for _ in range(2))
    paths = settled(source, clock).versions
    folder = Path(paths[1]).parent
    (folder / ".1-abc.tmp").mkdir()  # left by a crash
    source.prune([1, 2])
    assert {path.name for path in folder.iterdir()} == {os.path.basename(paths[version]) for version in (1, 2)}
    store.rm("/base/m/3", recursive=True)
    assert other.poll().versions == {version: paths[version] for version in (1, 2)}
    source.prune([1])
    assert set(other.poll().versions) == {1, 2}
    store.rm("/base/m/1", recursive=True)  # still served from its copy
    assert set(source.poll().versions) == {2}
    del other
    source.prune([1])
    assert {path.name for path in folder.iterdir()} == {os.path.basename(paths[1])}


def test_a_cache_that_is_emptied_meanwhile_is_no_error(
    tmp_path: Path, clock: Clock, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        save(store, f"/base/m/{version}")
    source = source_of(tmp_path, clock, policy=All())
    paths = settled(source, clock).versions
    rename = os.rename

    def emptied_first(path: str, to: str) -> None:
        shutil.rmtree(path)
        rename(path, to)

    monkeypatch.setattr(os, "rename", emptied_first)
    source.prune([2])
    assert entries(tmp_path) == [os.path.basename(paths[2])]


def test_two_pools_fetch_the_same_version_at_once(tmp_path: Path, clock: Clock, store: Any) -> None:
    save(store, "/base/m/1")
    source, other = source_of(tmp_path, clock), source_of(tmp_path, clock)
    other.poll()
    source.poll()
    clock.now_s += 1
    paths: list[str] = []

    def other_is_faster(_: str) -> None:
        FaultyFileSystem.faults.clear()
        paths.append(other.poll().versions[1])

    FaultyFileSystem.faults["get_file"] = other_is_faster
    assert source.poll().versions == {1: paths[0]}
    assert entries(tmp_path) == [os.path.basename(paths[0])]
