"""The file-system source: what counts as a version, and the texts for what is missing or cannot be read."""

import errno
import os
from pathlib import Path

import pytest

from modelpool.supervisor.model_config import ModelConfig
from modelpool.supervisor.source import Poll, Source, SourceOptions
from modelpool.supervisor.version_policy import All, Latest, Specific, VersionPolicy
from modelpool.supervisor.wire.status import Code, Status


def model(base_path: Path | str, policy: VersionPolicy = All()) -> ModelConfig:  # noqa: B008 - frozen
    return ModelConfig("m", str(base_path), version_policy=policy)


def poll(wanted: ModelConfig) -> Poll:
    """Look once, without memory: every version counts as whole."""
    return Source(wanted, SourceOptions(settle_s=0.0, incomplete_limit_s=0.0)).poll()


def with_versions(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
    return folder


def no_versions_text(folder: Path) -> str:
    return (
        f"No versions of servable m found under base path {folder}. "
        "Did you forget to name your leaf directory as a number (eg. '/1/')?"
    )


def test_versions_by_number_with_their_paths(tmp_path: Path) -> None:
    with_versions(tmp_path, "10", "9", "00000123", "0", "-5", "+7", " 8 ")
    found = poll(model(tmp_path))
    assert found.versions == {
        -5: f"{tmp_path}/-5",
        0: f"{tmp_path}/0",
        7: f"{tmp_path}/+7",
        8: f"{tmp_path}/ 8 ",
        9: f"{tmp_path}/9",
        10: f"{tmp_path}/10",
        123: f"{tmp_path}/00000123",
    }
    assert found.available == found.versions
    assert set(found.fingerprints) == set(found.versions)
    assert (found.warnings, found.error, found.incomplete) == ((), None, ())
    assert list(found.versions) == sorted(found.versions)


def test_names_that_are_no_int64_are_ignored(tmp_path: Path) -> None:
    largest, smallest = str(2**63 - 1), str(-(2**63))
    with_versions(tmp_path, largest, smallest, str(2**63), "1.0", "v1", "1_0", "0x1", "1.tmp", ".1", "\u0661", "+-1")
    (tmp_path / os.fsdecode(b"1\xff")).mkdir()
    assert set(poll(model(tmp_path)).versions) == {2**63 - 1, -(2**63)}


def test_plain_files_count_and_links_are_followed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with_versions(tmp_path, "base", "elsewhere")
    (base / "1").write_text("not a folder")
    (base / "2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(base)
    assert poll(model(tmp_path / "link")).versions == {1: f"{tmp_path}/link/1", 2: f"{tmp_path}/link/2"}


def test_policies(tmp_path: Path) -> None:
    with_versions(tmp_path, "1", "2", "10")
    assert set(poll(model(tmp_path, Latest())).versions) == {10}
    assert set(poll(model(tmp_path, Latest(2))).versions) == {2, 10}
    assert set(poll(model(tmp_path, Specific((1, 2)))).versions) == {1, 2}


def test_same_number_twice(tmp_path: Path) -> None:
    with_versions(tmp_path, "1", "001", "01")
    found = poll(model(tmp_path, Latest()))
    assert found.versions == {1: f"{tmp_path}/1"}
    assert found.warnings == (
        "Duplicate version directories detected. Version 1 will be loaded from 01, 001 will be ignored.",
        "Duplicate version directories detected. Version 1 will be loaded from 1, 01 will be ignored.",
    )


def test_absent_specific_versions(tmp_path: Path) -> None:
    with_versions(tmp_path, "1")
    text = (
        "Version {} of servable m, which was requested to be served as a 'specific' version in the servable's "
        "version policy, was not found in the file system"
    )
    found = poll(model(tmp_path, Specific((1, 3, 2))))
    assert (found.versions, found.warnings) == ({1: f"{tmp_path}/1"}, (text.format(2), text.format(3)))
    found = poll(model(tmp_path, Specific((2,))))
    assert (found.versions, found.warnings) == ({}, (text.format(2), no_versions_text(tmp_path)))


def test_empty_base_path_is_a_warning(tmp_path: Path) -> None:
    assert poll(model(tmp_path)) == Poll("m", {}, (no_versions_text(tmp_path),))


@pytest.mark.parametrize("name", ["missing", "missing/below", "file/below", "dangling"])
def test_missing_base_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    path = tmp_path / name
    text = f"Could not find base path {path} for servable m with error NOT_FOUND: {path} not found"
    assert poll(model(path)) == Poll("m", {}, error=Status(Code.NOT_FOUND, text))


def test_base_path_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    text = f"Could not read base path {path} for servable m: Not a directory"
    assert poll(model(path)).error == Status(Code.FAILED_PRECONDITION, text)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, Code.PERMISSION_DENIED),
        (errno.EMFILE, Code.RESOURCE_EXHAUSTED),
        (errno.ESTALE, Code.ABORTED),
        (errno.EIO, Code.UNKNOWN),
    ],
)
def test_other_errors_of_the_file_system(monkeypatch: pytest.MonkeyPatch, number: int, code: Code) -> None:
    def fail(path: str) -> list[str]:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "listdir", fail)
    text = f"Could not read base path /base for servable m: {os.strerror(number)}"
    assert poll(model("/base")) == Poll("m", {}, error=Status(code, text))


def test_no_path_at_all() -> None:
    text = "Invalid base path '/a\\x00b' for servable m: no file can have that name"
    assert poll(model("/a\0b")).error == Status(Code.INVALID_ARGUMENT, text)


def test_file_uri(tmp_path: Path) -> None:
    with_versions(tmp_path, "1")
    assert poll(model(f"file://{tmp_path}")).versions == {1: f"{tmp_path}/1"}
    error = poll(model("file://host")).error
    assert error is not None
    assert error.code is Code.NOT_FOUND


def test_trailing_slash_gives_no_double_one(tmp_path: Path) -> None:
    with_versions(tmp_path, "1")
    assert poll(model(f"{tmp_path}/")).versions == {1: f"{tmp_path}/1"}


def test_remote_needs_a_cache() -> None:
    text = "Base path memory://m for servable m is remote, and no cache directory is configured"
    assert poll(model("memory://m")) == Poll("m", {}, error=Status(Code.FAILED_PRECONDITION, text))
