"""The source over several polls: what is taken when, what stays taken, and TF Serving's two flags about no versions."""

import os
import shutil
import time
from pathlib import Path
from typing import NoReturn

import pytest

from modelpool.supervisor.model_config import ModelConfig
from modelpool.supervisor.source import Poll, Source, SourceOptions
from modelpool.supervisor.version_policy import All, Latest, Specific, VersionPolicy
from modelpool.supervisor.wire.status import Code, Status


class Clock:
    """The wall clock, ahead of the file system's by what a test says."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def model(base_path: Path | str, policy: VersionPolicy = All()) -> ModelConfig:  # noqa: B008 - frozen
    return ModelConfig("m", str(base_path), version_policy=policy)


def save(folder: Path, version: int, *, shards: int = 1, of: int = 1) -> Path:
    """A version as TensorFlow writes it, with the first `shards` of its variables."""
    path = folder / str(version)
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_text("graph")
    (path / "variables" / "variables.index").write_text("index")
    for number in range(shards):
        (path / "variables" / f"variables.data-{number:05d}-of-{of:05d}").write_text("data")
    return path


def waiting(version: int, reason: str) -> str:
    return f"Version {version} of servable m is not complete yet and is not taken: {reason}"


def no_versions(folder: Path) -> str:
    return (
        f"No versions of servable m found under base path {folder}. "
        "Did you forget to name your leaf directory as a number (eg. '/1/')?"
    )


def test_a_version_is_taken_when_it_has_settled(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    save(tmp_path, 1)
    found = source.poll()
    assert (found.versions, found.available, found.incomplete) == ({}, {}, (1,))
    assert found.warnings == (waiting(1, "it has not been unchanged for 1 s"),)
    clock.ahead_s = 2
    found = source.poll()
    assert found.versions == found.available == {1: f"{tmp_path}/1"}
    assert (found.warnings, found.incomplete) == ((), ())


def test_an_incomplete_newest_version_moves_nothing(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    save(tmp_path, 1)
    save(tmp_path, 2)
    clock.ahead_s = 2
    assert source.poll().versions == {2: f"{tmp_path}/2"}
    clock.ahead_s = 0
    save(tmp_path, 3)
    found = source.poll()
    assert (found.versions, found.incomplete) == ({2: f"{tmp_path}/2"}, (3,))
    assert set(found.available) == {1, 2}
    clock.ahead_s = 4
    assert source.poll().versions == {3: f"{tmp_path}/3"}


def test_a_taken_version_stays_until_its_directory_is_gone(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path), SourceOptions(clock=clock))
    path = save(tmp_path, 1)
    clock.ahead_s = 2
    fingerprint = source.poll().fingerprints[1]
    clock.ahead_s = 0
    (path / "new").write_text("")
    found = source.poll()
    assert set(found.versions) == {1}
    assert found.fingerprints == {1: fingerprint}
    shutil.rmtree(path)
    assert source.poll().versions == {}
    save(tmp_path, 1)
    assert source.poll().incomplete == (1,)


def test_missing_shards_are_waited_for_and_then_left_to_the_load(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path), SourceOptions(clock=clock))
    save(tmp_path, 1, shards=1, of=2)
    clock.ahead_s = 50
    assert source.poll().warnings == (waiting(1, "it lacks variables/variables.data-00001-of-00002"),)
    clock.ahead_s = 61
    assert set(source.poll().versions) == {1}


def test_marker_decides_alone(tmp_path: Path) -> None:
    source = Source(model(tmp_path), SourceOptions(complete_marker="_SUCCESS"))
    path = save(tmp_path, 1, shards=0)
    os.utime(path, (0, 0))
    assert source.poll().warnings == (waiting(1, "it does not hold _SUCCESS"),)
    (path / "_SUCCESS").write_text("")
    assert set(source.poll().versions) == {1}


def test_a_directory_without_a_model_is_left_to_the_load(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "1").mkdir()
    clock.ahead_s = 2
    assert set(Source(model(tmp_path), SourceOptions(clock=clock)).poll().versions) == {1}


def test_plain_files_are_taken_at_once(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("no folder")
    assert set(Source(model(tmp_path), SourceOptions(complete_marker="_SUCCESS")).poll().versions) == {1}


def test_watched_versions_get_new_fingerprints_when_they_have_settled(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path), SourceOptions(clock=clock))
    paths = [save(tmp_path, version) for version in (1, 2)]
    clock.ahead_s = 2
    before = source.poll().fingerprints
    source.watch([1])
    for path in paths:
        (path / "saved_model.pb").write_text("better graph")
    clock.ahead_s = 0
    found = source.poll()
    assert set(found.versions) == {1, 2}
    assert found.fingerprints == before
    clock.ahead_s = 2
    after = source.poll().fingerprints
    assert after[1] != before[1]
    assert after[2] == before[2]


def test_known_versions_are_not_scanned_again(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(model(tmp_path), SourceOptions(clock=clock))
    save(tmp_path, 1)
    clock.ahead_s = 2
    first = source.poll()

    def no_scan(path: str) -> NoReturn:
        raise AssertionError(path)

    monkeypatch.setattr("modelpool.supervisor.source.scan", no_scan)
    assert source.poll() == first


def test_a_new_configuration_keeps_what_is_taken(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    path = save(tmp_path, 1)
    save(tmp_path, 2)
    clock.ahead_s = 2
    source.poll()
    clock.ahead_s = 0
    (path / "new").write_text("")
    source.reconfigure(model(tmp_path, All()), SourceOptions(clock=clock))
    assert set(source.poll().versions) == {1, 2}
    with pytest.raises(ValueError, match="needs a source of its own"):
        source.reconfigure(model("/elsewhere"), SourceOptions(clock=clock))
    with pytest.raises(ValueError, match="needs a source of its own"):
        source.reconfigure(model(tmp_path), SourceOptions(clock=clock, cache_dir="/elsewhere"))


def test_a_new_rule_is_for_what_is_not_taken_yet(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    (save(tmp_path, 1) / "DONE").touch()
    save(tmp_path, 2)
    clock.ahead_s = 2
    before = source.poll()
    assert set(before.versions) == {2}
    source.reconfigure(model(tmp_path, Latest()), SourceOptions(clock=clock, complete_marker="DONE"))
    assert source.poll() == before, "service is not moved back"
    path = save(tmp_path, 3)
    found = source.poll()
    assert (set(found.versions), found.warnings) == ({2}, (waiting(3, "it does not hold DONE"),))
    (path / "DONE").touch()
    assert set(source.poll().versions) == {3}


def test_with_other_options_versions_may_have_to_be_there(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path), SourceOptions(clock=clock))
    assert source.poll().error is None
    source.reconfigure(model(tmp_path), SourceOptions(clock=clock, fail_if_zero_versions_at_startup=True))
    text = f"Unable to find a numerical version path for servable m at: {tmp_path}"
    assert source.poll().error == Status(Code.NOT_FOUND, text)
    assert source.poll().error is None


def test_versions_always_present(tmp_path: Path) -> None:
    source = Source(model(tmp_path), SourceOptions(settle_s=0, servable_versions_always_present=True))
    text = f"Unable to find a numerical version path for servable m at: {tmp_path}"
    assert source.poll() == Poll("m", {}, error=Status(Code.NOT_FOUND, text))
    assert source.poll() == Poll("m", {}, (no_versions(tmp_path),))
    path = save(tmp_path, 1)
    fingerprints = source.poll().fingerprints
    shutil.rmtree(path)
    for _ in range(2):
        found = source.poll()
        assert (found.versions, found.available, found.fingerprints) == ({1: str(path)}, {}, fingerprints)
        assert found.warnings == (no_versions(tmp_path), "Refusing to unload all versions for Servable: m")


def test_fail_if_zero_versions_at_startup(tmp_path: Path) -> None:
    options = SourceOptions(settle_s=0, fail_if_zero_versions_at_startup=True)
    text = f"Unable to find a numerical version path for servable m at: {tmp_path}"
    (tmp_path / "1").mkdir()
    source = Source(model(tmp_path, Specific((2,))), options)
    assert source.poll().error == Status(Code.NOT_FOUND, text)
    assert source.poll().error is None
    source = Source(model(tmp_path), options)
    assert set(source.poll().versions) == {1}
    (tmp_path / "1").rmdir()
    assert source.poll() == Poll("m", {}, (no_versions(tmp_path),))


def test_a_second_directory_of_the_same_number_takes_over_when_it_is_whole(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    save(tmp_path, 1).rename(tmp_path / "01")
    clock.ahead_s = 2
    assert source.poll().versions == {1: f"{tmp_path}/01"}
    clock.ahead_s = 0
    save(tmp_path, 1)
    found = source.poll()
    assert (found.versions, found.incomplete) == ({1: f"{tmp_path}/01"}, ()), "what is served stays meanwhile"
    clock.ahead_s = 2
    assert source.poll().versions == {1: f"{tmp_path}/1"}


def test_a_directory_that_gets_another_name_of_its_number_is_not_gone(tmp_path: Path, clock: Clock) -> None:
    source = Source(model(tmp_path, Latest()), SourceOptions(clock=clock))
    path = save(tmp_path, 1)
    clock.ahead_s = 2
    assert source.poll().versions == {1: f"{tmp_path}/1"}
    clock.ahead_s = 0
    path.rename(tmp_path / "00001")
    assert set(source.poll().versions) == {1}
    clock.ahead_s = 2
    assert source.poll().versions == {1: f"{tmp_path}/00001"}
    shutil.rmtree(tmp_path / "00001")
    assert source.poll().versions == {}
