"""Requests in quarantine: in a frontend, in the supervisor for those that come later, and kept on disk for replay."""

import os
from pathlib import Path

import pytest

from modelpool.frontend import poison_files, quarantine
from modelpool.frontend.poison_files import PoisonFiles
from modelpool.frontend.quarantine import Quarantine, fingerprint
from modelpool.supervisor import quarantines
from modelpool.supervisor.quarantines import Quarantines
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import Quarantined
from modelpool.supervisor.wire.ids import ServableId

SECOND = 10**9
M1, M2 = ServableId("m", 1), ServableId("m", 2)


class Clock:
    """Nanoseconds that pass when told."""

    def __init__(self) -> None:
        self.now_ns = 5 * SECOND

    def __call__(self) -> int:
        return self.now_ns


def entry(payload: bytes, until_ns: int = 100 * SECOND, name: str = "m") -> Quarantined:
    return Quarantined(name, 1, fingerprint(Method.PREDICT, payload), len(payload), until_ns)


def test_the_same_is_refused_until_its_time_is_over() -> None:
    clock = Clock()
    kept = Quarantine(clock)
    assert not kept.versions
    told = kept.isolate(M1, Method.PREDICT, b"bad", 10.0)
    assert told == entry(b"bad", 15 * SECOND)
    assert kept.versions
    assert kept.remaining_s(M1, Method.PREDICT, b"bad") == 10.0
    for other in ((M2, Method.PREDICT, b"bad"), (M1, Method.CLASSIFY, b"bad"), (M1, Method.PREDICT, b"bat")):
        assert kept.remaining_s(*other) == 0.0
    clock.now_ns = 15 * SECOND
    assert kept.remaining_s(M1, Method.PREDICT, b"bad") == 0.0
    assert not kept.versions


def test_the_later_end_counts_and_no_time_at_all_is_none() -> None:
    kept = Quarantine(Clock())
    for until_s in (20, 10):
        kept.add(entry(b"bad", until_s * SECOND))
    assert kept.remaining_s(M1, Method.PREDICT, b"bad") == 15.0
    kept = Quarantine(Clock())
    kept.isolate(M1, Method.PREDICT, b"bad", 0.0)
    assert not kept.versions
    assert kept.isolate(M1, Method.PREDICT, b"bad", 1e300).until_ns < 1 << 63


def test_only_what_has_the_size_of_poison_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Quarantine(Clock())
    kept.add(entry(b"bad"))
    monkeypatch.setattr(quarantine, "fingerprint", lambda *_: pytest.fail("hashed"))
    assert kept.remaining_s(M1, Method.PREDICT, b"longer") == 0.0


def test_a_frontend_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_ENTRIES", 2)
    kept = Quarantine(Clock())
    for payload in (b"a", b"b", b"c"):
        kept.add(entry(payload))
    assert [bool(kept.remaining_s(M1, Method.PREDICT, payload)) for payload in (b"a", b"b", b"c")] == [
        False,
        True,
        True,
    ]


def test_the_supervisor_keeps_what_is_in_force() -> None:
    book = Quarantines()
    long, short = entry(b"long", 100 * SECOND), entry(b"short", 10 * SECOND)
    for each in (long, short, entry(b"long", 50 * SECOND)):
        book.add(each)
    assert set(book.current(9 * SECOND)) == {long, short}
    assert book.current(10 * SECOND) == (long,)
    assert book.current(100 * SECOND) == ()


def test_a_model_with_much_poison_displaces_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantines, "MAX_ENTRIES", 3)
    book = Quarantines()
    book.add(entry(b"other", name="n"))
    for payload in (b"1", b"2", b"3", b"4"):
        book.add(entry(payload))
    assert set(book.current(0)) == {entry(b"other", name="n"), entry(b"3"), entry(b"4")}


def keep(folder: Path, payload: bytes, name: str = "m") -> None:
    PoisonFiles().keep(str(folder), entry(payload, name=name), Method.REST_PREDICT, payload).join()


def test_a_kept_request_is_the_payload_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "poison"
    keep(folder, b"payload", name="a/b")
    (path,) = folder.iterdir()
    mark = fingerprint(Method.PREDICT, b"payload").hex()
    assert path.name == f"a%2Fb-1-rest_predict-{mark}.poison"
    assert path.read_bytes() == b"payload"
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 2), ("MAX_BYTES", 20)])
def test_the_folder_stays_bounded_and_nothing_of_others_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(poison_files, limit, value)
    (tmp_path / "notes.txt").write_text("mine")
    for number in range(4):
        keep(tmp_path, b"payload %d " % number)
        for path in tmp_path.glob("*.poison"):
            if path.read_bytes() == b"payload %d " % number:
                os.utime(path, (number, number))
    assert sorted(path.read_bytes() for path in tmp_path.glob("*.poison")) == [b"payload 2 ", b"payload 3 "]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file", b"payload")
    assert "poison request not kept" in caplog.text
