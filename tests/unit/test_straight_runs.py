"""Requests that are run straight from the bytes they came in: answered as by the executor, and in the same order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.wire import data, flight_recorder
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import Batcher
from modelpool.worker.jobs import Task
from modelpool.worker.plan import Place, Plan
from modelpool.worker.predict_forms import KnownForm
from modelpool.worker.request_queue import Request, RequestQueue, Unopened
from modelpool.worker.straight_runs import StraightRun, StraightRunner
from modelpool.worker.work import Unbatched
from tests.unit.tables_world import PEER, POISON, Rows, World, message, payload, world

FRONTEND = 1
ALWAYS_NS = 1 << 60


def always(form: KnownForm) -> bool:
    return True


def put(queue: RequestQueue, raw: bytes, now_ns: int = 1) -> bool:
    return queue.put_unopened(Unopened(raw, PEER, FRONTEND, now_ns), data.count_predicts(raw))


class Line:
    """A queue that is emptied as a session does it: straight where that is possible, else by the executor."""

    def __init__(self, of: World) -> None:
        self.of = of
        self.now_ns = 100
        self.step_ns = 1
        self.queue = RequestQueue(1000)
        self.straight = StraightRunner(of.model, of.predictor.forms, of.flights, self._clock_ns)
        self.answers: list[tuple[int, int, bytes]] = []
        self.runs: list[StraightRun] = []

    def _clock_ns(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def put(self, raw: bytes) -> bool:
        return put(self.queue, raw, self.now_ns)

    def run(self, most: int = 100, within_ns: int = ALWAYS_NS) -> StraightRun | None:
        run = self.straight.run(self.queue, most, within_ns, always)
        if run is not None:
            self.runs.append(run)
            if run.reply is not None:
                replies = data.unpack_replies([data.SEVERAL_REPLIES, run.reply.body])
                assert run.reply.peer == PEER
                assert run.reply.requests == len(run.times) == len(replies)
                self.answers += [(request_id, code, body) for request_id, code, _, body in replies]
            if run.unfinished is not None:
                for task in self.of.executor.finish(run.unfinished):
                    self.answers.append((task.request.request_id, task.code, bytes(task.reply)))
        return run

    def run_all(self, most: int = 100, within_ns: int = ALWAYS_NS) -> list[tuple[int, int, bytes]]:
        while len(self.queue):
            if self.queue.unopened is None or self.run(most, within_ns) is None:
                request = self.queue.take()
                assert request is not None
                task = self.of.executor.execute(request)
                self.answers.append((task.request.request_id, task.code, bytes(task.reply)))
        return self.answers


@contextmanager
def line(model: Rows | None = None) -> Iterator[Line]:
    with world(model) as made:
        yield Line(made)


BODIES = st.one_of(
    st.builds(payload, st.sampled_from([[1.0, 2.0], [3.0, 4.0], [1.5, 2.5, 3.5, 4.5], [POISON, 1.0], []])),
    st.builds(payload, st.just([5.0, 6.0]), outputs=st.sampled_from([["y"], ["total"], ["nothing"]])),
    st.builds(payload, st.just([7.0, 8.0]), content=st.just(False)),
    st.sampled_from([b"", b"\xff\xff", b"no request"]),
)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(BODIES, st.booleans()), min_size=1, max_size=6), max_size=6), st.integers(1, 5))
def test_the_answers_are_those_of_the_executor(messages: Sequence[Sequence[tuple[bytes, bool]]], most: int) -> None:
    """Of whatever came, also of what fails, is alone or unknown: each once, and in the order in which they came."""
    with line() as straight, world() as plain:
        number, expected = 0, []
        for _ in range(3):  # the third time most of it is known
            for each in messages:
                raw = b""
                for body, alone in each:
                    number += 1
                    raw += message({number: body}, alone=alone)
                    task = plain.executor.execute(Request(PEER, FRONTEND, number, 0, 1, 2, Method.PREDICT, alone, body))
                    expected.append((number, task.code, bytes(task.reply)))
                assert straight.put(raw)
            straight.run_all(most)
        assert straight.answers == expected
        recording = flight_recorder.read(straight.of.fd)
        assert not recording.executing
        ended = {(flight.request_id, flight.code) for flight in recording.finished}
        assert ended == {(request_id, code) for request_id, code, _ in expected}


def known(of: Line, *payloads: bytes) -> None:
    of.of.learn(*payloads)
    of.runs.clear()


def test_all_of_a_message_in_one_go() -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        each.put(message(dict.fromkeys(range(1, 6), body)))
        run = each.run()
        assert run is not None
        assert [answer[:2] for answer in each.answers] == [(number, Code.OK) for number in range(1, 6)]
        assert each.of.model.runs == [1] * 5, "each is run by itself"
        assert each.queue.unopened is None
        for sent, began, run_ns, ran_ns, ended in run.times:
            assert sent == 1 < began < run_ns < ran_ns < ended
        assert [times[1] for times in run.times[1:]] == [times[4] for times in run.times[:-1]]
        assert run.ended_ns == run.times[-1][4]
        assert run.ran_ns == sum(times[3] - times[2] for times in run.times)


def test_not_more_than_was_asked_for_and_none_after_the_time() -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        each.put(message(dict.fromkeys(range(1, 8), body)))
        run = each.run(most=2)
        assert run is not None
        assert len(run.times) == 2
        assert len(each.queue) == 5
        each.step_ns = 100
        late = each.run(within_ns=350)  # the clock is read three times for each
        assert late is not None
        assert len(late.times) == 2
        assert [request_id for request_id, _, _ in each.run_all()] == list(range(1, 8))


def test_one_whose_deadline_has_passed_is_left_to_the_executor() -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        each.put(message({1: body}, deadline_ns=105) + message({2: body}, deadline_ns=104) + message({3: body}))
        each.now_ns = 90
        run = each.run()
        assert run is not None
        assert len(run.times) == 3
        each.put(message({4: body}, deadline_ns=each.now_ns))
        assert each.run() is None
        assert len(each.queue) == 1


@pytest.mark.parametrize("fits", [True, False])
def test_a_form_that_does_not_fit(fits: bool) -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        each.put(message({1: body}))
        run = each.straight.run(each.queue, 9, ALWAYS_NS, lambda form: fits)
        assert (run is not None) == fits
        assert len(each.queue) == (not fits)


def test_what_it_executes_is_in_the_recorder_and_what_waits_is_not() -> None:
    seen: list[list[int]] = []

    class Looking(Rows):
        during: Callable[[], Any] = staticmethod(lambda: None)

        def run(self, feeds: Any, fetches: Any) -> list[np.ndarray]:
            self.during()
            return super().run(feeds, fetches)

    model = Looking()
    body = payload([1.0, 2.0])
    with line(model) as each:
        known(each, body)
        model.during = lambda: seen.append(each.of.executing())
        each.put(message(dict.fromkeys((1, 2, 3), body)))
        assert each.run() is not None
    assert seen == [[1], [2], [3]]


def test_one_that_fails_costs_the_others_nothing_and_is_run_once() -> None:
    good, bad = payload([1.0, 2.0]), payload([POISON, 2.0])
    with line() as each:
        known(each, good)
        each.put(message({1: good, 2: bad, 3: good}))
        first = each.run()
        assert first is not None
        assert first.unfinished is not None
        assert [answer[:2] for answer in each.answers] == [(1, Code.OK), (2, Code.INVALID_ARGUMENT)]
        assert each.run() is not None
        assert each.answers[2][:2] == (3, Code.OK)
        assert each.of.model.runs == [1, 1, 1]


def test_what_nobody_foresaw_is_the_request_s_own_error() -> None:
    class Broken(Rows):
        broken = False

        def run(self, feeds: Any, fetches: Any) -> list[np.ndarray]:
            if self.broken:
                raise ZeroDivisionError("oh")
            return super().run(feeds, fetches)

    model, body = Broken(), payload([1.0, 2.0])
    with line(model) as each:
        known(each, body)
        model.broken = True
        each.put(message({1: body}))
        assert each.run() is not None
        assert each.answers == [(1, Code.INTERNAL, b"ZeroDivisionError: oh")]


def test_a_large_reply_is_right_and_its_form_is_not_run_so_again() -> None:
    class Growing(Rows):
        grows = False

        def run(self, feeds: Any, fetches: Any) -> list[np.ndarray]:
            outputs = super().run(feeds, fetches)
            return [np.repeat(each, 2000, axis=0) for each in outputs] if self.grows else outputs

    model, body = Growing(), payload([1.0, 2.0])
    with line(model) as each:
        known(each, body)
        model.grows = True
        each.put(message({1: body}))
        run = each.run()
        assert run is not None
        assert run.unfinished is not None
        assert len(each.answers[0][2]) > data.SMALL_BYTES
        assert each.answers[0][:2] == (1, Code.OK)
        each.put(message({2: body}))
        assert each.run() is None


def test_a_reply_that_cannot_be_made_is_an_error() -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        form = each.of.predictor.forms.of_length(len(body))[0]

        def fail(outputs: Sequence[Any]) -> bytes:
            raise ValueError("no reply")

        plan = form.read(body)
        assert plan is not None
        forms = each.of.predictor.forms
        broken = Plan(plan.feeds, plan.fetches, fail, plan.signatures)
        forms.learn(body, broken)
        each.put(message({1: body}))
        assert each.run() is not None
        assert each.answers == [(1, Code.INTERNAL, b"ValueError: no reply")]


def test_without_batching_all_that_waits_may_be_run_so() -> None:
    with world() as made:
        work, queue = Unbatched(made.executor), RequestQueue(10)
        body = payload([1.0, 2.0])
        put(queue, message({1: body, 2: body}))
        assert work.may_go_straight(queue) == 2


def test_with_batching_only_one_that_nothing_waits_beside() -> None:
    body = payload([1.0, 2.0])
    with world() as made:
        assert put(made.queue, message({1: body}))
        assert made.work.may_go_straight(made.queue) == 1
        put(made.queue, message({2: body}))
        assert made.work.may_go_straight(made.queue) == 0
        made.run_all()
        made.learn(body)
        assert made.put(message({3: body, 4: body})), "a table"
        put(made.queue, message({5: body}))
        assert made.work.may_go_straight(made.queue) == 0
        made.run_all()
        assert set(made.answers) == {3, 4, 5}


def test_what_waits_for_a_batch_of_the_flags_does_not_go_straight() -> None:
    body = payload([1.0, 2.0])
    with world() as made:
        batcher: Batcher[Task] = Batcher(Batching(max_batch_size=4), 100, 100)
        work = Batched(made.executor, batcher, lambda plan: plan.signatures)
        assert put(made.queue, message({1: body}))
        assert work.may_go_straight(made.queue) == 0


def ran_straight(made: World, body: bytes) -> StraightRun:
    """A request whose form is known, by itself."""
    put(made.queue, message({1: body}))
    straight = StraightRunner(made.model, made.predictor.forms, made.flights)
    run = straight.run(made.queue, 1, ALWAYS_NS, made.work.fits_straight)
    assert run is not None
    return run


def test_with_batching_one_that_fails_counts_as_a_batch_that_failed() -> None:
    good, bad = payload([1.0, 2.0]), payload([POISON, 2.0])
    with world() as made:
        made.learn(good)
        run = ran_straight(made, bad)
        assert made.work.ran_straight(run)
        job = run.unfinished
        assert job is not None
        assert (job.batched, job.rows, job.took_s, job.family) == (True, 1, None, ("serving_default",))
        (task,) = made.executor.finish(job)
        assert (task.code, task.rows) == (Code.INVALID_ARGUMENT, 1)


def test_forms_with_large_replies_are_not_known_as_such_that_go_straight() -> None:
    body = payload([1.0, 2.0])
    with line() as each:
        known(each, body)
        assert each.straight.knows(len(body))
        assert not each.straight.knows(len(body) + 1)
        each.of.predictor.forms.of_length(len(body))[0].common.large_reply = True
        assert not each.straight.knows(len(body))


def test_with_batching_a_form_fits_once_it_is_known_to_share_runs() -> None:
    body = payload([1.0, 2.0])
    with world() as made:
        made.learn(body)
        form = made.predictor.forms.of_length(len(body))[0]
        assert made.work.fits_straight(form)
        run = ran_straight(made, body)
        assert made.work.ran_straight(run), "a batch"
        made.work._keep_apart(("serving_default",), "its outputs are no rows")
        assert not made.work.fits_straight(form)
        form.common.place = None
        assert not made.work.fits_straight(form)


def test_what_went_straight_is_learned_of_when_there_is_time_and_before_it_is_too_much() -> None:
    body = payload([1.0, 2.0])
    with world() as made:
        made.learn(body)
        run = ran_straight(made, body)
        made.work.ran_straight(run)
        assert made.observed == []
        run.form.common.place = None
        for _ in range(2):
            made.work.rest()
            assert made.observed == [(("serving_default",), 1)]
        run.form.common.place = Place(("serving_default",), 1, "")
        for _ in range(63):
            made.work.ran_straight(run)
        assert len(made.observed) == 1
        made.work.ran_straight(run)
        assert len(made.observed) == 65
        made.work.ran_straight(run)
        put(made.queue, message({2: body}))
        made.run_all()
        assert len(made.observed) == 67, "before what was run later"
