"""What is executed next, with a real executor on a model that can be told to fail: nobody's answer is another's."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code, ResourceExhausted, Unavailable
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import AutoBatcher, Batcher
from modelpool.worker.executor import Executor
from modelpool.worker.jobs import Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.plan import Form, Plan
from modelpool.worker.request_queue import Gone
from modelpool.worker.work import Unbatched, Work
from tests.unit.work_world import BAD, MORE, POISON, Bench, auto, batched, plan


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*args: Any, **values: Any) -> Bench:
        made.append(Bench(*args, **values))
        return made[-1]

    yield make
    for each in made:
        each.close()


PAYLOADS = st.lists(
    st.builds(
        lambda columns, rows, values: bytes([columns, *(values * 20)[: columns * rows]]),
        st.integers(1, 2),
        st.integers(0, 6),
        st.lists(
            st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, BAD, POISON, MORE]) | st.integers(0, 99), min_size=1, max_size=8
        ),
    ),
    max_size=12,
)
WORKS = st.sampled_from(
    [
        auto,
        batched(),
        batched(max_batch_size=5, batch_timeout_micros=3),
        batched(max_batch_size=8, allowed_batch_sizes=(2, 5, 8)),
        batched(max_batch_size=8, max_execution_batch_size=3, enable_large_batch_splitting=True),
        batched(
            max_batch_size=8, max_execution_batch_size=4, enable_large_batch_splitting=True, allowed_batch_sizes=(3, 4)
        ),
    ]
)


@settings(deadline=None)
@given(PAYLOADS, WORKS)
def test_answers_with_batching_are_those_without(payloads: list[bytes], work: Callable[[Executor], Work]) -> None:
    plain, together = Bench(Unbatched), Bench(work)
    try:
        for bench in (plain, together):
            for number, payload in enumerate(payloads):
                bench.ask(number, payload)
            bench.run_all()
        assert set(plain.answers) == set(together.answers) == set(range(len(payloads)))
        for number, payload in enumerate(payloads):
            want, got = plain.answers[number], together.answers[number]
            if work is not auto and MORE in payload[1:] and got.code is Code.FAILED_PRECONDITION:
                continue
            too_large = (len(payload) - 1) // payload[0] > 5
            if not (too_large and got.reply.startswith(b"Task size ")):
                assert (got.code, got.reply) == (want.code, want.reply)
        assert together.executing() == []
    finally:
        plain.close()
        together.close()


def rows(*values: int) -> bytes:
    return bytes([1, *values])


def test_requests_share_a_run(bench: Callable[..., Bench]) -> None:
    desk = bench(auto)
    for number in range(4):
        desk.ask(number, rows(number))
    desk.run_all()
    assert desk.model.runs == [4]
    assert [int.from_bytes(desk.answers[number].reply, "little") for number in range(4)] == [0, 1, 4, 9]


def test_one_that_a_run_refuses_costs_nobody_else(bench: Callable[..., Bench]) -> None:
    desk = bench(auto)
    for number, value in enumerate((1, POISON, BAD, 3)):
        desk.ask(number, rows(value))
    desk.run_all()
    assert [desk.answers[number].code for number in range(4)] == [
        Code.OK,
        Code.INVALID_ARGUMENT,
        Code.INVALID_ARGUMENT,
        Code.OK,
    ]
    assert desk.answers[2].reply == b"bad"
    assert desk.model.runs == [3, 1, 1, 1]


@pytest.mark.parametrize("guilty", [0, 41, 99])
def test_one_that_a_run_refuses_costs_few_runs(bench: Callable[..., Bench], guilty: int) -> None:
    desk = bench(batched())
    for number in range(100):
        desk.ask(number, rows(POISON if number == guilty else number))
    desk.run_all()
    refused = {number for number, task in desk.answers.items() if task.code is not Code.OK}
    assert refused == {guilty}
    assert len(desk.model.runs) <= 1 + 2 * 5 + 4
    assert all(desk.answers[n].reply == int(n * n).to_bytes(8, "little") for n in range(100) if n != guilty)


def test_a_batch_that_is_too_large_is_answered_in_smaller_ones(bench: Callable[..., Bench]) -> None:
    """As one for which there is no memory."""
    desk = bench(batched())

    def during() -> None:
        if len(desk.model.runs) < 3:
            desk.model.runs.append(0)
            raise ResourceExhausted("no room")

    desk.model.during = during
    for number in range(20):
        desk.ask(number, rows(number))
    desk.run_all()
    assert {task.code for task in desk.answers.values()} == {Code.OK}
    assert desk.model.runs == [0, 0, 0, 3, 2, 5, 10]


def test_those_that_are_run_again_have_an_allowed_size_too(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=8, allowed_batch_sizes=(2, 8)))
    for number, payload in enumerate((rows(1), rows(POISON), rows(3, 4, 5))):
        desk.ask(number, payload)
    desk.run_all()
    assert desk.model.runs == [8, 2, 2, 8], "a model that takes no other sizes would refuse everybody"
    assert [desk.answers[number].code for number in range(3)] == [Code.OK, Code.INVALID_ARGUMENT, Code.OK]
    assert np.frombuffer(desk.answers[2].reply, "<i8").tolist() == [9, 16, 25]


def test_outputs_that_are_no_rows_are_whole_with_batching_by_itself_and_refused_with_that_of_the_flags(
    bench: Callable[..., Bench],
) -> None:
    for work, runs, code in ((auto, [3, 1, 1, 1], Code.OK), (batched(), [3, 1, 1, 1], Code.FAILED_PRECONDITION)):
        desk = bench(work)
        for number, value in enumerate((1, MORE, 3)):
            desk.ask(number, rows(value))
        desk.run_all()
        assert desk.model.runs == runs
        assert [desk.answers[number].code for number in range(3)] == [Code.OK, code, Code.OK]
    desk = bench(auto)
    for number, value in enumerate((1, MORE, 3)):
        desk.ask(number, rows(value))
    desk.run_all()
    assert np.frombuffer(desk.answers[1].reply, "<i8").tolist() == [MORE**2] * 2
    for number in range(10, 14):
        desk.ask(number, rows(number))
    desk.run_all()
    assert desk.model.runs[4:] == [1, 1, 1, 1], "that they were rows before was luck"


def test_nothing_is_run_twice_where_that_is_forbidden(bench: Callable[..., Bench]) -> None:
    desk = bench(auto, again=False)
    for number, value in enumerate((1, POISON)):
        desk.ask(number, rows(value))
    desk.run_all()
    assert desk.model.runs == [2]
    assert {desk.answers[number].reply for number in range(2)} == {b"poison"}


def test_alone_shares_neither_a_run_nor_its_time(bench: Callable[..., Bench]) -> None:
    for work in (auto, Unbatched):
        desk = bench(work)
        desk.ask(1, rows(1))
        first = desk.next()
        assert first is not None
        desk.ask(2, rows(2), alone=True)
        desk.ask(3, rows(3))
        assert desk.next(running=1) is None
        desk.execute(first)
        alone = desk.next()
        assert alone is not None
        assert [part.task.request.request_id for part in alone.parts] == [2]
        assert desk.executing() == [2]
        assert desk.next(running=1) is None
        desk.execute(alone)
        desk.run_all()
        assert set(desk.answers) == {1, 2, 3}


def test_alone_has_an_allowed_size_and_is_split_as_in_a_batch(bench: Callable[..., Bench]) -> None:
    """Or what was tried once more after a crash would be refused by the model, or crash by its very size."""
    work = batched(
        max_batch_size=9, max_execution_batch_size=4, enable_large_batch_splitting=True, allowed_batch_sizes=(2, 4)
    )
    desk = bench(work)
    desk.ask(1, rows(*range(9)), alone=True)
    desk.ask(2, rows(7))
    desk.ask(3, rows(1, 2, 3, 4, POISON, 6, 7, 8, 9), alone=True)
    desk.run_all()
    assert np.frombuffer(desk.answers[1].reply, "<i8").tolist() == [n * n for n in range(9)]
    assert desk.answers[3].code is Code.INVALID_ARGUMENT
    assert sorted(desk.model.runs) == [2, 2, 4, 4, 4, 4], "the third piece of the last is not run"
    assert desk.executing() == []
    assert desk.work.due_ns(0) is None


def test_one_that_comes_while_nothing_waits_is_a_batch_of_its_own(bench: Callable[..., Bench]) -> None:
    desk = bench(auto)
    for number, payload in enumerate([bytes([1, 3]), b"", bytes([1, POISON]), bytes([1, BAD]), bytes([2, 1, 2, 3, 4])]):
        desk.ask(number, payload)
        desk.run_all()
    assert [desk.answers[number].code for number in range(5)] == [
        *(Code.OK, Code.OK, Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT, Code.OK)
    ]
    assert np.frombuffer(desk.answers[4].reply, "<i8").tolist() == [1, 4, 9, 16]
    assert desk.answers[1].reply == b"meta"
    desk.ask(5, bytes([1, 1, 2, 3]))
    job = desk.next()
    assert job is not None
    assert (job.batched, job.rows, job.strict) == (True, 3, False)
    assert desk.executing() == [5]


def test_alone_is_so_also_where_nothing_waits(bench: Callable[..., Bench]) -> None:
    desk = bench(auto)
    desk.ask(1, bytes([1, 3]), alone=True)
    first = desk.next()
    assert first is not None
    desk.ask(2, bytes([1, 4]))
    assert desk.next(running=1) is None
    desk.execute(first)
    desk.run_all()
    assert set(desk.answers) == {1, 2}


def test_one_that_must_not_be_run_is_refused_also_where_nothing_waits(bench: Callable[..., Bench]) -> None:
    def never(planned: Plan) -> None:
        raise ResourceExhausted("too large")

    limit = LearnedLimit()
    desk = bench(lambda executor: Batched(executor, AutoBatcher(lambda family: limit, lambda *ran: None), never))
    desk.ask(1, bytes([1, 3]))
    desk.run_all()
    assert desk.answers[1].code is Code.RESOURCE_EXHAUSTED
    assert desk.model.runs == []


def test_the_recorder_has_those_that_are_executed_and_not_those_that_wait(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=2, batch_timeout_micros=1000))
    seen: list[list[int]] = []
    desk.model.during = lambda: seen.append(desk.executing())
    for number in range(3):
        desk.ask(number, rows(number))
    job = desk.next()
    assert job is not None
    desk.execute(job)
    assert desk.executing() == []
    desk.run_all()
    assert seen == [[0, 1], [2]]


def test_expired_and_cancelled_requests_are_not_run(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=9, batch_timeout_micros=1000))
    desk.ask(1, rows(1), deadline_ns=1 << 62)
    desk.ask(2, rows(2))
    desk.ask(3, rows(3))
    assert desk.next() is None
    desk.work.forget(Gone(1, frozenset({2})))
    desk.now_ns = (1 << 62) + 1
    job = desk.next()
    assert job is not None
    assert [part.task.request.request_id for part in job.parts] == [3]
    desk.execute(job)
    assert desk.answers[1].code is Code.DEADLINE_EXCEEDED
    assert desk.answers[3].code is Code.OK
    assert 2 not in desk.answers
    assert desk.model.runs == [1]


def test_parts_of_a_request_may_end_in_any_order(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=8, max_execution_batch_size=3, enable_large_batch_splitting=True))
    desk.ask(1, rows(*range(8)))
    jobs = [job for running in range(3) if (job := desk.next(running)) is not None]
    for job in reversed(jobs):
        assert not desk.answers
        desk.execute(job)
    assert np.frombuffer(desk.answers[1].reply, "<i8").tolist() == [n * n for n in range(8)]


def test_requests_for_other_outputs_share_no_run(bench: Callable[..., Bench]) -> None:
    def filtered(payload: bytes) -> Plan:
        made = plan(payload)
        fetches = ["y"] if payload[1] % 2 else ["y", "z"]
        return Plan(made.feeds, fetches, lambda outputs: bytes([len(outputs)]), made.signatures)

    desk = bench(auto)
    desk.executor._planners = {Method.PREDICT: filtered}
    for number in range(6):
        desk.ask(number, rows(number))
    desk.run_all()
    assert [desk.answers[number].reply for number in range(6)] == [b"\2", b"\1"] * 3
    assert desk.model.runs == [3, 3]


def test_rows_are_learned_and_not_requests(bench: Callable[..., Bench]) -> None:
    learned: list[tuple[Any, int]] = []

    def work(executor: Executor) -> Work:
        batcher = AutoBatcher[Task](
            lambda family: LearnedLimit(), lambda family, rows, took_s: learned.append((family, rows))
        )
        return Batched(executor, batcher, lambda planned: planned.signatures)

    desk = bench(work)
    for number in range(3):
        desk.ask(number, rows(1, 2, 3))
    desk.run_all()
    assert learned == [(("s",), 9)]


def test_a_full_queue_is_an_answer(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=1, max_enqueued_batches=2, batch_timeout_micros=1000))
    for number in range(3):
        desk.ask(number, rows(number))
    desk.work.admit(desk.queue, 0)
    (full,) = desk.work.refused
    assert full.code is Code.UNAVAILABLE
    assert full.reply.endswith(b"is full; currently 2 batches enqueued and max_enqueued_batches is 2")
    assert Unavailable.code is full.code


def test_what_needs_no_run_does_not_wait_for_a_batch(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=9, batch_timeout_micros=1000))
    desk.ask(1, rows(1))
    desk.ask(2, b"")
    job = desk.next()
    assert job is not None
    desk.execute(job)
    assert desk.answers[2].reply == b"meta"
    assert set(desk.answers) == {2}


def test_padding_among_neighbours_of_other_sizes(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(pad_variable_length_inputs=True))
    desk.ask(1, bytes([1, 3]))
    desk.ask(2, bytes([2, 4, 5]))
    desk.run_all()
    assert desk.model.runs == [2]
    assert np.frombuffer(desk.answers[1].reply, "<i8").tolist() == [9, 9], "as TF Serving: outputs stay padded"
    assert np.frombuffer(desk.answers[2].reply, "<i8").tolist() == [16, 25]


def test_what_follows_from_a_form_is_found_out_once_and_not_for_what_is_alone(bench: Callable[..., Bench]) -> None:
    asked: list[Plan] = []

    def family(planned: Plan) -> Any:
        asked.append(planned)
        return planned.signatures

    batching = Batching(max_batch_size=8, batch_timeout_micros=1000)
    made = bench(lambda executor: Batched(executor, Batcher(batching), family))
    form = Form()

    def formed(payload: bytes) -> Plan:
        made_plan = plan(payload)
        made_plan.form = form if payload[0] == 1 else None
        return made_plan

    made.executor._planners = {Method.PREDICT: formed}
    made.ask(1, bytes([1, 3]), alone=True)
    for request_id in (2, 3, 4):
        made.ask(request_id, bytes([1, request_id]))
    made.ask(5, bytes([2, 1, 1]))
    made.run_all()
    assert [np.frombuffer(made.answers[number].reply, "<i8").tolist() for number in range(1, 6)] == [
        *([9], [4], [9], [16]),
        [1, 1],
    ]
    assert made.model.runs == [1, 3, 1]
    assert len(asked) == 2, "of the form, and of the other"


def test_nobody_is_woken_for_what_must_wait_for_a_run_to_end(bench: Callable[..., Bench]) -> None:
    """One that is to be alone waits for those that run, and all others for it."""
    desk = bench(auto)
    desk.ask(1, rows(1))
    first = desk.next()
    assert first is not None
    desk.ask(2, rows(2), alone=True)
    assert desk.next(running=1) is None
    assert (desk.work.due_ns(1), desk.work.due_ns(0) is None) == (None, False)
    desk.execute(first)
    second = desk.next()
    assert second is not None
    desk.ask(3, rows(3))
    assert desk.next(running=1) is None
    assert (desk.work.due_ns(1), desk.work.due_ns(0) is None) == (None, False)
    desk.execute(second)
    desk.run_all()
    assert set(desk.answers) == {1, 2, 3}
