"""What is drawn and handed to the writer of a request log, what is dropped, and that a broken disk harms nobody."""

import logging
import threading
from collections import Counter
from random import Random

import numpy as np
import pytest

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code, InvalidArgument, ResourceExhausted
from modelpool.supervisor.wire.worker_spec import RequestLog
from modelpool.worker.logged_requests import Answered
from modelpool.worker.request_log import RequestLogger, Seams
from tests.e2e.eventually import eventually

WITHIN_S = 10.0


class FakeFiles:
    """LogFiles that keep records in memory. `error` is what the disk says."""

    def __init__(self, desk: "Desk", settings: RequestLog) -> None:
        self.settings = settings
        self._desk = desk

    def append(self, record: bytes) -> None:
        assert self._desk.may_write.wait(WITHIN_S)
        if self._desk.error is not None:
            raise self._desk.error
        self._desk.written.append((self.settings.filename_prefix, record))

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        self._desk.finished.append(self.settings.filename_prefix)

    def abandon(self) -> None:
        self._desk.abandoned += 1
        raise OSError("neither can it be closed")


class Desk:
    """A logger, and a worker that answers a payload with itself in brackets, by a run with one output."""

    def __init__(self, max_waiting_bytes: int = 1000) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.finished: list[str] = []
        self.abandoned = 0
        self.may_write = threading.Event()
        self.may_write.set()
        self.error: Exception | None = None
        self.counts: Counter[Code] = Counter()
        self.now = 0.0
        self.logger = RequestLogger(
            Seams(
                self._make,
                lambda settings: FakeFiles(self, settings),  # type: ignore[arg-type,return-value]
                self._count,
                {Method.PREDICT, Method.REST_PREDICT},
            ),
            random=Random(5),
            clock=lambda: self.now,
            max_waiting_bytes=max_waiting_bytes,
        )

    def _make(self, answered: Answered, rate: float) -> bytes:
        if answered.payload == b"unreadable":
            raise InvalidArgument("cannot be a record")
        outputs = b"".join(name.encode() for name in answered.outputs)
        return b"%s>%s%s" % (answered.payload, answered.reply, outputs)

    def _count(self, code: Code) -> None:
        self.counts[code] += 1

    def log(self, rate: float = 1.0, prefix: str = "/p") -> None:
        self.logger.configure(RequestLog(rate, prefix, 1, 1))

    def ask(self, *payloads: bytes, method: Method = Method.PREDICT) -> None:
        for payload in payloads:
            if self.logger.on:
                self.logger.answered(method, payload, b"[%s]" % payload, {"y:0": np.ones(3, np.float32)})

    def close(self) -> list[bytes]:
        """What was written, once all is."""
        self.logger.close(WITHIN_S)
        return [record for _, record in self.written]


def test_off_unless_configured() -> None:
    desk = Desk()
    desk.ask(b"a")
    assert desk.close() == []
    assert "request-log" not in {each.name for each in threading.enumerate()}


def test_requests_with_their_answers_in_their_order() -> None:
    desk = Desk()
    desk.log()
    desk.ask(b"a", b"b")
    desk.ask(b"c", method=Method.REST_PREDICT)
    desk.ask(b"d", method=Method.METADATA)
    desk.ask(b"e")
    assert desk.close() == [b"a>[a]", b"b>[b]", b"c>[c]y:0", b"e>[e]"], "no metadata"
    assert desk.finished == ["/p"]
    assert desk.counts == {Code.OK: 4}


def test_a_share_is_drawn() -> None:
    desk = Desk(1 << 20)
    desk.log(0.25)
    desk.ask(*[b"x"] * 4000)
    assert abs(len(desk.close()) - 1000) < 100
    assert set(desk.counts) == {Code.OK}


def test_a_rate_of_zero() -> None:
    desk = Desk()
    desk.log(0.0)
    desk.ask(*[b"x"] * 100)
    assert desk.close() == []


def test_another_configuration_ends_the_file() -> None:
    desk = Desk()
    desk.log(prefix="/p")
    desk.ask(b"a")
    desk.log(prefix="/q")
    desk.ask(b"b")
    desk.logger.configure(None)
    desk.ask(b"c")
    desk.log(prefix="/r")
    desk.ask(b"d")
    desk.close()
    assert desk.written == [("/p", b"a>[a]"), ("/q", b"b>[b]"), ("/r", b"d>[d]")]
    assert desk.finished == ["/p", "/q", "/r"]


def test_a_full_queue_drops_and_counts_and_does_not_wait() -> None:
    desk = Desk(max_waiting_bytes=50)
    desk.may_write.clear()
    desk.log()
    # The writer holds at most one of them; of the rest 50 bytes fit, and an answer has two bytes more than its request.
    desk.ask(*[b"0123456789" for _ in range(20)])
    dropped = desk.counts[Code.UNAVAILABLE]
    assert dropped in {17, 18}
    desk.ask(b"x" * 50)
    assert desk.counts[Code.UNAVAILABLE] == dropped + 1, "too big alone"
    desk.may_write.set()
    assert len(desk.close()) == 20 - dropped
    assert desk.counts[Code.OK] == 20 - dropped


def test_arrays_kept_for_a_rest_answer_count() -> None:
    desk = Desk(max_waiting_bytes=15)
    desk.log()
    desk.ask(b"a", method=Method.REST_PREDICT)
    assert desk.counts == {Code.UNAVAILABLE: 1}, "1 + 3 + 12 bytes"
    desk.ask(b"a")
    assert desk.close() == [b"a>[a]"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(28, "No space left on device"), Code.UNKNOWN), (ResourceExhausted("full"), Code.RESOURCE_EXHAUSTED)],
)
def test_a_full_disk(error: Exception, code: Code, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.error = error
    with caplog.at_level(logging.ERROR):
        desk.log()
        desk.ask(b"a", b"b", b"c")
        desk.logger.configure(RequestLog(1.0, "/p", 1, 1))
        desk.close()
    assert desk.written == []
    assert desk.counts == {code: 3}
    assert desk.abandoned == 3
    (record,) = caplog.records
    assert "requests not logged" in record.getMessage()


def test_a_disk_that_works_again_and_a_complaint_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.error = OSError("gone")
    desk.log()

    def lose(count: int) -> None:
        expected = desk.counts[Code.UNKNOWN] + count
        desk.ask(*[b"a"] * count)
        eventually(lambda: desk.counts[Code.UNKNOWN] == expected, WITHIN_S)

    with caplog.at_level(logging.ERROR):
        lose(2)
        desk.now = 60.0
        lose(1)
    assert [record.getMessage().partition(" ")[2] for record in caplog.records] == [
        "not logged lost=1 error=gone",
        "not logged lost=2 error=gone",
    ]
    desk.error = None
    desk.ask(b"z")
    assert desk.close() == [b"z>[z]"]


def test_a_request_that_makes_no_record() -> None:
    desk = Desk()
    desk.log()
    desk.ask(b"unreadable", b"a")
    assert desk.close() == [b"a>[a]"]
    assert desk.counts == {Code.INVALID_ARGUMENT: 1, Code.OK: 1}


def test_closing_waits_for_a_stuck_disk_only_so_long() -> None:
    desk = Desk()
    desk.may_write.clear()
    desk.log()
    desk.ask(b"a")
    desk.logger.close(0.01)
    assert desk.written == []
    desk.may_write.set()
    assert desk.close() == [b"a>[a]"]
