"""Crash reports: what is in one, that files are whole and private and few, and how they are listed."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor import crash_files, crashes_command
from modelpool.supervisor.command_options import UsageError
from modelpool.supervisor.commands import Report
from modelpool.supervisor.crash_files import CrashFiles
from modelpool.supervisor.exits import Exit, ExitKind, Remains
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import Flight, Recording
from modelpool.supervisor.wire.status import Code, NotFound
from tests.unit.manager_world import STOPPED, World

WALL_S = 1_700_000_000.25


def reports_of(exit_: Exit) -> list[dict[str, Any]]:
    """What is to be kept of a worker that served and ended so at 1000 s of its clock."""
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.manager.exited(incarnation, exit_, world.now_s)
    return [dict(c.document) for c in world.manager.advance(world.now_s) if isinstance(c, Report)]


def a_report(**changes: Any) -> dict[str, Any]:
    flights = Recording(
        executing=(Flight(7, 2, int(998.5e9), 0, 123, Method.PREDICT, 0),),
        finished=(
            Flight(6, 2, int(990e9), int(991e9), 50, Method.PREDICT, Code.INVALID_ARGUMENT),
            Flight(5, 2, 1, 2, 0, 99, 99),
        ),
    )
    exit_ = Exit(None, 11, "killed by SIGSEGV", flights, None, Remains("Fatal Python error", "bye\n", 1 << 20))
    (document,) = reports_of(exit_)
    return document | changes


def test_a_report_says_who_died_of_what_and_at_what() -> None:
    document = a_report()
    assert (document["model"], document["version"], document["kind"]) == ("m", 1, ExitKind.SIGNAL)
    assert (document["signal"], document["cause"], document["state"]) == (11, "killed by SIGSEGV", "ready")
    assert (document["stack"], document["stderr"], document["peak_rss_bytes"]) == (
        "Fatal Python error",
        "bye\n",
        1 << 20,
    )
    assert document["executing"] == [
        {"request": 7, "frontend": 2, "method": "PREDICT", "size_bytes": 123, "began_s_before": 1.5}
    ]
    finished, mad = document["finished"]
    assert (finished["took_s"], finished["code"], finished["began_s_before"]) == (1.0, "INVALID_ARGUMENT", 10.0)
    assert (mad["method"], mad["code"]) == ("99", "99")


def test_what_ends_as_it_was_told_leaves_no_report() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    world.aspire()
    world.ack()
    world.manager.exited(incarnation, STOPPED, world.now_s)
    assert not [command for command in world.manager.advance(world.now_s) if isinstance(command, Report)]


def test_a_report_is_whole_and_private(tmp_path: Path) -> None:
    files = CrashFiles(tmp_path / "crashes")
    id_ = files.write(a_report(model="a/b c"), WALL_S)
    (path,) = (tmp_path / "crashes").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    document = files.read(id_)
    assert (document["id"], document["time"]) == (id_, "2023-11-14T22:13:20.250Z")
    assert files.read(id_[:18]) == document
    assert [each["id"] for each in files.newest("a/b c", 10)] == [id_]
    assert list(files.newest("a", 10)) == []


def test_one_model_that_dies_again_and_again_pushes_no_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_files, "MAX_FILES", 5)
    monkeypatch.setattr(crash_files, "MAX_FILES_PER_MODEL", 2)
    files = CrashFiles(tmp_path)
    for number in range(20):
        files.write(a_report(model="rare" if number % 9 == 1 else "loop", incarnation=number), WALL_S + number)
    kept = [(each["model"], each["incarnation"]) for each in files.newest(None, 100)]
    assert kept == [("rare", 19), ("loop", 18), ("loop", 17), ("rare", 10)]
    for number in range(20):
        files.write(a_report(model=f"m{number}", incarnation=number), WALL_S + 100 + number)
    assert len(files.ids()) == 5


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        CrashFiles(tmp_path / "file").write(a_report(), WALL_S)
    files = CrashFiles(tmp_path)
    with pytest.raises(TypeError):
        files.write(a_report(stack=object()), WALL_S)
    stale = tmp_path / "20200101T000000.000000-1.1-m.unfinished"
    stale.touch()
    os.utime(stale, (0, 0))
    files.write(a_report(), WALL_S)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".json"]


def test_a_beginning_must_be_of_one_report(tmp_path: Path) -> None:
    files = CrashFiles(tmp_path / "none")
    with pytest.raises(NotFound):
        files.read("x")
    for number in range(2):
        files.write(a_report(incarnation=number), WALL_S)
    with pytest.raises(NotFound, match="more than one"):
        files.read("2023")


def command(tmp_path: Path, *argv: str) -> int:
    return crashes_command.run([*argv, f"--crash_dir={tmp_path}"], tmp_path / "base", tmp_path)


def test_the_command_lists_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path) == 0
    assert capsys.readouterr().out == "no worker has died\n"
    id_ = CrashFiles(tmp_path).write(a_report(), WALL_S)
    assert command(tmp_path) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["WHEN", "(UTC)"]
    for text in ("2023-11-14 22:13:20", "m", "signal", "killed by SIGSEGV", "1 MiB", id_[:22]):
        assert text in line
    assert command(tmp_path, "--json", "--model=m") == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == [id_]
    assert command(tmp_path, "show", id_[:22]) == 0
    shown = capsys.readouterr().out
    assert "-- stack\nFatal Python error" in shown
    assert "-- stderr\nbye" in shown
    assert "request=7" in shown
    assert command(tmp_path, "show", "zzz") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("modelpool crashes: ")


@pytest.mark.parametrize("argv", [["--nonsense"], ["show"], ["--port=x"], ["list", "x"]])
def test_the_command_says_what_it_expects(argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        command(tmp_path, *argv)
