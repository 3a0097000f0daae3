"""Requests that are read, run and answered as a table: as they would be one by one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2

import modelpool.supervisor.wire.protos  # noqa: F401  (a bare tensorflow package, before its protos)
from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.metrics import unpack
from modelpool.supervisor.wire.status import Code
from modelpool.worker import request_table
from modelpool.worker.request_queue import Gone
from tests.unit.tables_world import POISON, SPREAD, Rows, World, message, payload, world

FLOATS = st.floats(width=32).filter(lambda value: value not in {POISON, SPREAD})
SMALL = st.integers(-1000, 1000)


@pytest.fixture
def knowing() -> Iterator[World]:
    """One that knows requests of one row."""
    with world() as made:
        made.learn(payload([1, 2]))
        yield made


def alone(model: Rows, bodies: Sequence[bytes]) -> dict[int, tuple[int, bytes]]:
    """What each is answered that nobody else is beside."""
    with world(model, tables=False) as each:
        for number, body in enumerate(bodies):
            each.put(message({number: body}))
            each.run_all()
        return each.answers


@given(
    st.lists(st.lists(FLOATS, min_size=4, max_size=4), min_size=2, max_size=40),
    st.integers(1, 90),
    st.sampled_from([(), ("y",), ("y", "total"), ("total", "y")]),
    st.booleans(),
)
def test_answers_are_those_of_each_by_itself(
    values: list[list[float]], limit: int, outputs: tuple[str, ...], content: bool
) -> None:
    bodies = [payload(each, outputs=outputs, content=content) for each in values]
    with world(limit=limit) as together:
        together.learn(bodies[0])
        assert together.put(message(dict(enumerate(bodies))))
        assert together.run_all() == alone(Rows(), bodies)
        assert max(together.model.runs) <= max(limit, 2), "rows of a run"
        assert sum(together.model.runs) == 2 * len(bodies)
        assert sum(rows for _, rows in together.observed) == 2 * len(bodies)
        assert not together.executing()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=9), st.integers(1, 20))
def test_runs_keep_to_the_limit_whatever_rows_requests_have(messages: list[tuple[int, int]], limit: int) -> None:
    with world(limit=limit) as together:
        together.learn(*[payload([1, 2] * rows) for rows in range(1, 10)])
        number, asked = 0, []
        for rows, count in messages:
            bodies = [payload([number + each, 1] * rows) for each in range(count)]
            assert together.put(message({number + each: body for each, body in enumerate(bodies)}))
            number += count
            asked += [rows] * count
        answers = together.run_all()
        assert set(answers) == set(range(number))
        assert sum(together.model.runs) == sum(asked)
        assert max(together.model.runs) <= max(limit, *asked)
        apart = [rows for rows in together.model.runs if rows > limit]
        assert len(apart) <= sum(rows > limit for rows in asked), "only one that is too large by itself"


@given(st.lists(st.lists(SMALL, min_size=2, max_size=2), min_size=2, max_size=9))
def test_several_inputs(values: list[list[int]]) -> None:
    both = ("n", "x")
    bodies = [payload(each, inputs=both) for each in values]
    with world(Rows(both)) as together:
        together.learn(payload([1, 2], inputs=both))
        assert together.put(message(dict(enumerate(bodies))))
        assert together.run_all() == alone(Rows(both), bodies)


@given(st.data())
def test_spoiled_bytes_come_to_the_same(data: st.DataObject) -> None:
    bodies = [bytearray(payload([each, each + 1])) for each in range(4)]
    for _ in range(data.draw(st.integers(0, 3))):
        body = data.draw(st.sampled_from(bodies))
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with world() as together:
        together.learn(payload([1, 2]))
        together.put(message({number: bytes(body) for number, body in enumerate(bodies)}))
        assert together.run_all() == alone(Rows(), [bytes(body) for body in bodies])


@given(st.data())
def test_spoiled_messages_are_no_tables(data: st.DataObject) -> None:
    """Or of requests that stand in them just so."""
    raw = bytearray(message({number: payload([number, 1]) for number in range(3)}))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    with world() as made:
        made.learn(payload([1, 2]))
        found = request_table.find(bytes(raw), made.predictor.forms)
    if found is not None:
        table = request_table.RequestTable(found, b"p", 1, 1)
        requests = [request for request, _ in table.requests()]
        assert len(requests) * len(found.rows[0]) == len(raw)
        assert not any(request.alone for request in requests)


@pytest.mark.parametrize(
    "raw",
    [
        message({1: payload([1, 2]), 2: payload([1, 2, 3, 4])}),
        message({1: payload([1, 2]), 2: payload([1, 2], outputs=["y"])}),
        message({1: payload([1, 2]), 2: payload([1, 2])}, alone=True),
        b"",
        b"\0\0\0\0",
    ],
)
def test_what_is_no_table(knowing: World, raw: bytes) -> None:
    assert request_table.find(raw, knowing.predictor.forms) is None


def test_a_form_is_known_only_when_it_is_known_to_share_runs() -> None:
    raw = message({1: payload([1, 2]), 2: payload([3, 4])})
    with world() as fresh:
        assert not fresh.put(raw)
        fresh.run_all()
        assert not fresh.put(raw.replace(b"\x01\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0", 1))


def test_who_fails_costs_nobody_else(knowing: World) -> None:
    values = [[1, 2], [POISON, 1], [3, 4], [5, 6], [7, 8], [9, 9]]
    bodies = [payload(each) for each in values]
    assert knowing.put(message(dict(enumerate(bodies))))
    assert knowing.run_all() == alone(Rows(), bodies)
    assert [code for code, _ in knowing.answers.values()].count(Code.INVALID_ARGUMENT) == 1
    assert not knowing.executing()


def test_who_must_not_run_again_fails_with_the_others() -> None:
    with world(again=False) as made:
        made.learn(payload([1, 2]))
        assert made.put(message({1: payload([1, 2]), 2: payload([POISON, 2])}))
        answers = made.run_all()
        assert {code for code, _ in answers.values()} == {Code.INVALID_ARGUMENT}
        assert made.model.runs == [2]


def test_outputs_that_are_no_rows(knowing: World) -> None:
    bodies = [payload([1, 2]), payload([SPREAD, 2])]
    assert knowing.put(message(dict(enumerate(bodies))))
    assert knowing.run_all() == alone(Rows(), bodies)
    assert not knowing.put(message({5: bodies[0], 6: bodies[0]})), "from now on they share no run"


def test_a_request_that_is_left_by_itself_may_have_outputs_that_are_no_rows(knowing: World) -> None:
    knowing.limit.rows = 2
    bodies = [payload([1, 2]), payload([3, 4]), payload([SPREAD, 2])]
    assert knowing.put(message(dict(enumerate(bodies))))
    assert knowing.run_all() == alone(Rows(), bodies)
    assert knowing.model.runs == [2, 1]


def test_the_flight_recorder_has_those_that_run(knowing: World) -> None:
    knowing.limit.rows = 2
    assert knowing.put(message({each: payload([each, 1]) for each in (1, 2, 3)}))
    assert knowing.executing() == []
    job = knowing.next()
    assert job is not None
    assert knowing.executing() == [1, 2]
    knowing.execute(job)
    assert knowing.executing() == []
    assert set(knowing.answers) == {1, 2}


def test_cancelled_and_expired_ones_are_not_run(knowing: World) -> None:
    assert knowing.put(message({each: payload([each, 1]) for each in (1, 2, 3)}))
    knowing.work.forget(Gone(1, frozenset({2, 7})))
    knowing.work.forget(Gone(2))
    assert set(knowing.run_all()) == {1, 3}
    assert knowing.put(message({4: payload([4, 1])}) + message({5: payload([5, 1])}, deadline_ns=20))
    assert knowing.put(message({6: payload([6, 1])}))
    knowing.now_ns = 21
    answers = knowing.run_all()
    assert answers[5][0] is Code.DEADLINE_EXCEEDED
    assert answers[4][0] is answers[6][0] is Code.OK
    assert knowing.model.runs == [2, 2], "those that are left are tables still"
    assert knowing.put(message({8: payload([4, 1]), 9: payload([4, 1])}))
    knowing.work.forget(Gone(1))
    assert knowing.next() is None
    assert not len(knowing.tables or ())


def test_a_later_one_that_expires_is_found_as_well(knowing: World) -> None:
    assert knowing.put(message({1: payload([1, 1])}))
    assert knowing.put(message({2: payload([2, 1])}, deadline_ns=20))
    knowing.now_ns = 21
    assert knowing.run_all()[2][0] is Code.DEADLINE_EXCEEDED


def test_what_waits_elsewhere_goes_first(knowing: World) -> None:
    for number in range(40):  # more than a run has, and of a size of which one does not fit in
        knowing.put(message({number: payload([number, 1, 2, 3, 4, 5])}))
    job = knowing.next()
    assert job is not None
    assert not knowing.put(message({50: payload([1, 2]), 51: payload([1, 2])}))
    knowing.execute(job)
    assert len(knowing.run_all()) == 42


def test_no_more_wait_than_may() -> None:
    with world(most=3) as made:
        made.learn(payload([1, 2]))
        assert made.put(message({each: payload([each, 1]) for each in range(3)}))
        assert not made.put(message({each: payload([each, 1]) for each in range(3, 5)}))
        assert set(made.run_all()) == set(range(5))
        assert not made.put(message({each: payload([each, 1]) for each in range(10, 14)}))


def test_tables_of_one_form_share_a_run(knowing: World) -> None:
    pair = {"outputs": ["y"]}
    knowing.learn(payload([1, 2], **pair))
    for number in range(3):
        assert knowing.put(message({2 * number: payload([1, 2]), 2 * number + 1: payload([3, 4])}))
    assert knowing.put(message({8: payload([1, 2], **pair), 9: payload([3, 4], **pair)}))
    assert set(knowing.run_all()) == {*range(6), 8, 9}
    assert knowing.model.runs == [6, 2]


def test_no_more_run_at_a_time_than_may_wait() -> None:
    with world(most=3, limit=1000) as made:
        made.learn(payload([1, 2]))
        assert made.tables is not None
        assert made.put(message({each: payload([each, 1]) for each in range(3)}))
        assert sum(map(len, made.tables.take())) == 3
    with world(most=3, limit=1000) as made:
        made.learn(payload([1, 2]))
        for number in range(3):
            assert made.put(message({number: payload([number, 1])}))
        made.run_all()
        assert made.model.runs == [3]


def test_tables_of_one_key_share_a_run_whatever_is_between(knowing: World) -> None:
    named, other = payload([5, 6], signature="serving_default"), payload([1, 2], outputs=["y"])
    knowing.learn(named, other)
    for number in range(0, 12, 6):
        assert knowing.put(message({number: payload([1, 2]), number + 1: payload([3, 4])}))
        assert knowing.put(message({number + 2: other, number + 3: other}))
        assert knowing.put(message({number + 4: named, number + 5: named}))
    answers = knowing.run_all()
    assert knowing.model.runs == [8, 4]
    kinds = [payload([1, 2]), payload([3, 4]), other, other, named, named]
    assert answers == alone(Rows(), kinds * 2)


def test_who_waits_shares_no_run_with_a_family_that_was_found_unfit(knowing: World) -> None:
    knowing.limit.rows = 2
    bodies = [payload([1, 2]), payload([SPREAD, 2])] + [payload([each, 1]) for each in range(4)]
    assert knowing.put(message(dict(enumerate(bodies))))
    assert knowing.run_all() == alone(Rows(), bodies)
    assert knowing.model.runs == [2, 1, 1, 1, 1, 1, 1]


def test_a_form_whose_replies_cannot_be_made_at_once_is_left() -> None:
    class Counts(Rows):
        """Of integers, each of which takes as many bytes as it needs."""

        def __init__(self) -> None:
            super().__init__()
            self.signatures["serving_default"].outputs["y"].dtype = types_pb2.DT_INT64

        def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
            total, y = super().run(feeds, fetches)
            return [total, y.astype(np.int64)]

    taken = []
    with world(Counts()) as made:
        made.learn(payload([1, 2]))
        for number in range(0, 20, 2):
            bodies = {number: payload([number, 1]), number + 1: payload([number, 2])}
            taken.append(made.put(message(bodies)))
            made.run_all()
        assert made.answers == alone(Counts(), [payload([each - each % 2, 1 + each % 2]) for each in range(20)])
    assert taken == [True] * 4 + [False] * 6


def counted(made: World) -> dict[Any, float]:
    """How often each was observed, and the sums of what does not depend on the time."""
    made.metrics.settle()
    found: dict[Any, float] = {}
    for sample in made.registry.changed():
        values = unpack(sample.values)
        times = sample.family in {families.STAGE_SECONDS.name, families.RUNTIME_LATENCY.name}
        times = times or sample.family == families.QUEUING_LATENCY.name
        found[sample.family, sample.labels] = sum(values[1:]) if times else sum(values)
    return found


def test_metrics_and_who_wants_to_see_each() -> None:
    seen = []
    for tables, each in ((True, False), (True, True), (False, False)):
        with world(tables=tables) as made:
            made.learn(payload([1, 2]))
            made.each = each
            counted(made)
            assert made.put(message({number: payload([number, 1]) for number in range(5)})) is tables
            made.run_all()
            seen.append((counted(made), made.answers))
    assert seen[0] == seen[1] == seen[2]
    stages = [value for (family, _), value in seen[0][0].items() if family == families.STAGE_SECONDS.name]
    assert len(stages) == 5
