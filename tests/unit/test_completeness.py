"""When a version's directory counts as whole: the rule, on trees and clocks that are made up, and the scan."""

import os
from pathlib import Path

import pytest

from modelpool.supervisor import completeness
from modelpool.supervisor.completeness import (
    Completeness,
    CompletenessRule,
    Tree,
    lacking_variables,
    scan,
    waits_for,
)

INDEX = "variables/variables.index"
WHOLE = frozenset({"saved_model.pb", INDEX, "variables/variables.data-00000-of-00001"})
UNSETTLED = "it has not been unchanged for 1 s"


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Writer:
    """One version as a source looks at it, by our clock."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.clock = Clock(now_s)
        self.completeness = Completeness(CompletenessRule(), self.clock)

    def look(self, now_s: float, fingerprint: str, newest_s: float | None, name: str = "1") -> str | None:
        self.clock.now_s = now_s
        self.completeness.listed({"1", name})
        return self.completeness.judge(name, Tree(fingerprint, WHOLE, newest_s))


def test_an_old_tree_is_whole_at_first_sight() -> None:
    assert Writer().look(1000, "a", 998.9) is None


def test_a_tree_that_changed_just_now_waits() -> None:
    writer = Writer()
    assert writer.look(1000, "a", 999.5) == UNSETTLED
    assert writer.look(1000.4, "b", 1000.3) == UNSETTLED
    assert writer.look(1001.2, "b", 1000.3) == UNSETTLED
    assert writer.look(1001.3, "b", 1000.3) is None


@pytest.mark.parametrize("newest_s", [1e9, float("inf"), None])
def test_a_clock_ahead_or_none_leaves_it_to_two_looks(newest_s: float | None) -> None:
    writer = Writer()
    assert writer.look(1000, "a", newest_s) == UNSETTLED
    assert writer.look(1000.9, "a", newest_s) == UNSETTLED
    assert writer.look(1001, "a", newest_s) is None


def test_a_clock_behind_is_found_out() -> None:
    writer = Writer()
    writer.completeness.listed(set())
    assert writer.look(1001, "a", 990) == UNSETTLED  # it was not there at 1000
    assert writer.look(1005, "b", 994) == UNSETTLED
    assert writer.look(1006, "b", 994) is None


def test_a_late_look_believes_the_times() -> None:
    writer = Writer()
    assert writer.look(1000, "a", 999.9) == UNSETTLED
    assert writer.look(1060, "b", 1030) is None


def test_our_clock_set_back_does_not_block() -> None:
    writer = Writer()
    assert writer.look(1000, "a", 1e9) == UNSETTLED
    assert writer.look(500, "a", 1e9) == UNSETTLED
    assert writer.look(501, "a", 1e9) is None


def test_what_is_not_listed_is_forgotten() -> None:
    writer = Writer()
    writer.look(1000, "a", None, "2")
    assert writer.completeness.has_seen("2")
    writer.completeness.listed({"1"})
    assert not writer.completeness.has_seen("2")


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        (WHOLE, None),
        ({"saved_model.pb"}, None),
        ({"model.tflite"}, None),
        (set(), None),
        ({INDEX}, "variables/variables.data-*"),
        ({"variables/variables.data-00000-of-00001"}, INDEX),
        ({INDEX, "variables/variables.data-00001-of-00003"}, "variables/variables.data-00000-of-00003"),
        ({INDEX, *(f"variables/variables.data-{i:05d}-of-00003" for i in range(3))}, None),
    ],
)
def test_lacking_variables(files: set[str], lacking: str | None) -> None:
    assert lacking_variables(files) == lacking
    rule = CompletenessRule()
    assert waits_for(Tree("a", frozenset(files)), rule, 59) == (f"it lacks {lacking}" if lacking else None)
    assert waits_for(Tree("a", frozenset(files)), rule, 60) is None


def test_marker_and_plain_file() -> None:
    rule = CompletenessRule(marker="_SUCCESS")
    assert waits_for(Tree("a", WHOLE), rule, 1000) == "it does not hold _SUCCESS"
    assert waits_for(Tree("a", frozenset({INDEX, "_SUCCESS"})), rule, 0) is None
    assert waits_for(Tree("a", plain=True), rule, 0) is None


def test_scan_sees_names_sizes_and_change_times(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_text("graph")
    (tmp_path / "variables" / "variables.index").write_text("")
    first = scan(str(tmp_path))
    assert first.files == {"saved_model.pb", INDEX}
    assert first == scan(str(tmp_path))
    os.utime(tmp_path / "saved_model.pb", (0, 0))  # as `cp -p` does: old, and yet written now
    second = scan(str(tmp_path))
    assert second.fingerprint != first.fingerprint
    assert second.newest_s is not None
    assert second.newest_s > 0
    os.utime(tmp_path / "saved_model.pb", (0, 4e9))
    assert scan(str(tmp_path)).newest_s == 4e9


def test_scan_of_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "up").symlink_to(tmp_path)
    tree = scan(str(tmp_path))
    assert tree.newest_s == float("inf")
    assert tree == scan(str(tmp_path))
    assert scan(str(tmp_path / "nowhere")).plain


def test_a_link_out_of_the_version_is_followed_to_a_small_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "_MAX_LINKED_ENTRIES", 3)
    version, shared, host = (tmp_path / name for name in ("1", "shared", "host"))
    for folder in (version, shared / "deep", host / "a", host / "b"):
        folder.mkdir(parents=True)
    (version / "variables").symlink_to("../shared")
    (version / "usr").symlink_to(host)
    (version / "own").symlink_to(".")
    (shared / "deep" / "x").write_text("x")
    (host / "a" / "y").write_text("y")
    (host / "b" / "z").write_text("z")
    before = scan(str(version))
    assert before.files == {"variables/deep/x"}
    (host / "a" / "y").write_text("longer")
    assert scan(str(version)) == before
    (shared / "deep" / "x").write_text("longer")
    assert scan(str(version)).fingerprint != before.fingerprint
    (host / "b" / "z").unlink()
    assert scan(str(version)).files == {"variables/deep/x", "usr/a/y"}


def test_a_scan_ends_after_so_many_entries_the_near_ones_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "_MAX_ENTRIES", 6)
    for folder in ("a", "b"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "x").write_text("x")
        (tmp_path / folder / "y").write_text("y")
    assert scan(str(tmp_path)).files == {"a/y", "b/y"}
    monkeypatch.setattr(completeness, "_MAX_ENTRIES", 8)
    assert scan(str(tmp_path)).files == {"a/y", "b/y", "a/deep/x", "b/deep/x"}
