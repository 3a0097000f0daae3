"""Where files of a request log begin and end, what a dead writer's become, and which are deleted."""

import fcntl
import os
from pathlib import Path

import pytest

from modelpool.supervisor.wire.worker_spec import RequestLog
from modelpool.worker.log_files import RECORD_OVERHEAD_BYTES, LogFiles, RecordFormat, Writer

# A fake format: each record and its overhead, which ends with a line break.
_OVERHEAD = b"." * (RECORD_OVERHEAD_BYTES - 1) + b"\n"


class Plain:
    def __init__(self, file: str) -> None:
        self._file = open(file, "wb")  # noqa: SIM115

    def write(self, record: bytes) -> None:
        self._file.write(record + _OVERHEAD)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def whole_bytes(file: str) -> int:
    return Path(file).read_bytes().rfind(b"\n") + 1


class Desk:
    """Writers in one folder, with a clock by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_700_000_000.0

    def writer(
        self,
        incarnation: int = 7,
        *,
        model: str = "m",
        prefix: str = "log",
        max_bytes: int = 1 << 20,
        max_files: int = 9,
    ) -> LogFiles:
        settings = RequestLog(1.0, f"{self.folder}/{prefix}", max_bytes, max_files)
        record_format = RecordFormat(Plain, whole_bytes)
        return LogFiles(settings, Writer(model, 3, incarnation), record_format, lambda: self.now)

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def records(self, name: str) -> list[bytes]:
        return (self.folder / name).read_bytes().replace(_OVERHEAD[:-1], b"").splitlines()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "logs")


def test_a_file_is_partial_until_it_is_finished(desk: Desk) -> None:
    files = desk.writer()
    files.append(b"a")
    files.append(b"b")
    files.flush()
    name = "log.m.3.20231114T221320Z.7.000001.tfrecord"
    assert desk.names == [f"{name}.partial"]
    assert desk.records(desk.names[0]) == [b"a", b"b"]
    files.finish()
    files.finish()
    assert desk.names == [name]
    files.append(b"c")
    files.finish()
    assert desk.names == [name, "log.m.3.20231114T221320Z.7.000002.tfrecord"]


def test_nothing_is_made_before_there_is_a_record(desk: Desk) -> None:
    files = desk.writer()
    files.flush()
    files.finish()
    files.abandon()
    assert not desk.folder.exists()


def test_a_file_ends_with_its_bytes(desk: Desk) -> None:
    files = desk.writer(max_bytes=2 * (1 + RECORD_OVERHEAD_BYTES))
    for record in (b"a", b"b", b"c", b"x" * 1000, b"d"):
        files.append(record)
    files.finish()
    assert [desk.records(name) for name in desk.names] == [[b"a", b"b"], [b"c"], [b"x" * 1000], [b"d"]]


def test_a_file_has_as_many_records_as_a_warmup_file_may_have(desk: Desk) -> None:
    files = desk.writer()
    for _ in range(1001):
        files.append(b"a")
    files.finish()
    assert [len(desk.records(name)) for name in desk.names] == [1000, 1]


def test_the_newest_files_of_all_versions_and_runs_are_kept_and_no_other_is_touched(desk: Desk) -> None:
    desk.folder.mkdir()
    older = [
        "log.m.9.20231114T221319Z.900.000001.tfrecord",
        "log.m.1.20231114T221319Z.1000.000001.tfrecord",
        "log.m.3.20231114T221319Z.1000.000002.tfrecord",
    ]
    foreign = [
        *("log.n.3.20201114T221320Z.1.000001.tfrecord", "log.m.n.3.20201114T221320Z.1.000001.tfrecord", "log.m"),
        *("log.m.3.20201114T221320Z.1.000001.tfrecord.bak", "xlog.m.3.20201114T221320Z.1.000001.tfrecord"),
    ]
    for name in (*older, *foreign):
        (desk.folder / name).write_bytes(b"x" + _OVERHEAD)
    files = desk.writer(max_files=2)
    files.append(b"a")
    assert set(older) < set(desk.names)
    files.finish()
    assert set(desk.names) == {*foreign, older[2], "log.m.3.20231114T221320Z.7.000001.tfrecord"}


def test_models_do_not_share_names(desk: Desk) -> None:
    writers = [
        desk.writer(model="a.b", prefix="log"),
        desk.writer(model="b", prefix="log.a"),
        desk.writer(model="a/b", prefix="log"),
        desk.writer(model="log.a", prefix=""),
    ]
    for files in writers:
        files.append(b"a")
        files.finish()
    assert desk.names == [
        f"{stem}.3.20231114T221320Z.7.000001.tfrecord" for stem in ("log%2Ea", "log.a%2Eb", "log.a%2Fb", "log.a.b")
    ]


def test_what_a_dead_writer_left_is_completed_and_what_a_living_one_writes_is_not(desk: Desk) -> None:
    desk.folder.mkdir()
    dead, empty = (f"log.m.1.20231114T221319Z.{number}.000001.tfrecord" for number in (1, 2))
    (desk.folder / f"{dead}.partial").write_bytes(b"a" + _OVERHEAD + b"b" + _OVERHEAD + b"cut")
    (desk.folder / f"{empty}.partial").write_bytes(b"cut")
    alive = desk.writer(5)
    alive.append(b"x")
    alive.flush()
    assert desk.names == [dead, "log.m.3.20231114T221320Z.5.000001.tfrecord.partial"]
    assert desk.records(dead) == [b"a", b"b"]
    other = desk.writer(6)
    other.append(b"y")
    alive.append(b"z")
    alive.finish()
    other.finish()
    assert desk.records("log.m.3.20231114T221320Z.5.000001.tfrecord") == [b"x", b"z"]


def test_a_file_given_up_is_mended_before_the_next(desk: Desk) -> None:
    files = desk.writer()
    files.append(b"a")
    files.abandon()
    (name,) = desk.names
    with (desk.folder / name).open("ab") as file:
        file.write(b"cut")
    files.append(b"b")
    assert desk.records(name.removesuffix(".partial")) == [b"a"]
    files.finish()
    assert len(desk.names) == 2


def test_a_file_in_progress_is_locked(desk: Desk) -> None:
    files = desk.writer()
    files.append(b"a")
    fd = os.open(desk.folder / desk.names[0], os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)
        files.finish()


def test_a_missing_place_is_an_error_until_it_is_there(desk: Desk) -> None:
    files = desk.writer(prefix="far/away/log")
    with pytest.raises(FileNotFoundError):
        files.append(b"a")
    desk.folder.mkdir()
    (desk.folder / "far").mkdir()
    files.append(b"b")
    files.finish()
    assert len(os.listdir(desk.folder / "far" / "away")) == 1
