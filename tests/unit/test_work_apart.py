"""Requests that were to share runs and whose outputs are no rows: they share none from then on."""

import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from modelpool.supervisor.wire.data import Method
from modelpool.worker.batched_work import _MAX_APART, Batched
from modelpool.worker.plan import Plan
from tests.unit.work_world import MORE, POISON, Bench, auto, plan


@pytest.fixture
def desk() -> Iterator[Bench]:
    with closing(Bench(auto)) as made:
        yield made


NUMBERS = count()


def ask_all(desk: Bench, *values: int) -> None:
    for value, number in zip(values, NUMBERS, strict=False):
        desk.ask(number, bytes([1, value]))


def test_what_shows_in_a_part_of_a_batch_that_failed_otherwise(desk: Bench) -> None:
    ask_all(desk, 1, 2, 3, POISON, 5, 6, 7, MORE, 9, 10)
    desk.run_all()
    assert desk.model.runs == [10, 5, 3, 2, 1, 1, 5, 1, 1, 1, 1, 1]
    ask_all(desk, 1, 2, 3)
    desk.run_all()
    assert desk.model.runs[12:] == [1, 1, 1]


def test_it_is_said_once_whatever_is_batched_already(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """As with several executors."""
    jobs = []
    for _ in range(3):
        ask_all(desk, 1, MORE)
        jobs.append(desk.next())
    with caplog.at_level(logging.WARNING):
        for job in jobs:
            assert job is not None
            desk.execute(job)
    assert [record.getMessage().split(" family=")[0] for record in caplog.records] == ["not batched any more"]


def test_so_many_families_are_known(desk: Bench) -> None:
    """A client thinks of them, in MultiInference: whoever does must not fill the memory."""
    asked: list[str] = []
    assert isinstance(desk.work, Batched)

    def other(payload: bytes) -> Plan:
        made = plan(payload)
        made.signatures = tuple(asked[-1:])
        return made

    desk.executor._planners = {Method.PREDICT: other}
    for number in range(3 * _MAX_APART):
        asked.append(str(number))
        ask_all(desk, 1, MORE)
        desk.run_all()
    assert len(desk.work._apart) == _MAX_APART
    assert desk.model.runs == [2, 1, 1] * 3 * _MAX_APART
    before = len(desk.model.runs)
    ask_all(desk, 1, MORE)
    desk.run_all()
    assert desk.model.runs[before:] == [1, 1], "of the last of them"
