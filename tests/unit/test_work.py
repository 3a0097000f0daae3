"""What is executed next, with a real executor on a model that can be told to fail: nobody's answer is another's."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.wire import flight_recorder
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code, InvalidArgument, Unavailable
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batching import AutoBatcher, Batcher
from modelpool.worker.executor import Executor, Job, Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.plan import Form, Plan
from modelpool.worker.request_queue import Request, RequestQueue
from modelpool.worker.work import Batched, Unbatched, Work

BAD, POISON = 200, 201  # a value that the plan refuses, and one that a run does


class Squares:
    """y = x * x, and the row's number of columns, of a matrix; refuses to run with POISON in it."""

    signatures: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.during: Callable[[], None] = lambda: None

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        x = feeds["x"]
        self.during()
        self.runs.append(len(x))
        if (x == POISON).any():
            raise InvalidArgument("poison")
        return [x.astype(np.int64) ** 2 for _ in fetches]


def plan(payload: bytes) -> Plan:
    """The first byte is the number of columns, the rest the values."""
    values = np.frombuffer(payload, np.uint8)[1:].reshape(-1, payload[0])
    if (values == BAD).any():
        raise InvalidArgument("bad")
    return Plan({"x": values}, ["y"], lambda outputs: outputs[0].astype("<i8").tobytes(), ("s",))


class Bench:
    """A queue and what works on it; `answers` by request id."""

    def __init__(self, work: Callable[[Executor], Work], *, again: bool = True) -> None:
        fd = flight_recorder.create("test")
        self.fd = os.dup(fd)
        self.model = Squares()
        self.flights = flight_recorder.FlightRecorder(fd)
        planners = {Method.PREDICT: plan, Method.METADATA: lambda payload: Plan(None, (), lambda _: b"meta")}
        self.executor = Executor(self.model, planners, self.flights, again=again)
        self.work = work(self.executor)
        self.queue = RequestQueue(1000)
        self.answers: dict[int, Task] = {}
        self.now_ns = 0

    def ask(self, request_id: int, payload: bytes, *, alone: bool = False, deadline_ns: int = 0) -> None:
        method = Method.PREDICT if payload else Method.METADATA
        self.queue.put(Request(b"p", 1, request_id, deadline_ns, 1, 2, method, alone, payload))

    def next(self, running: int = 0) -> Job | None:
        job = self.work.next(self.queue, running, self.now_ns)
        for task in self.work.refused:
            self.answers[task.request.request_id] = task
        self.work.refused.clear()
        return job

    def execute(self, job: Job) -> None:
        self.executor.run(job)
        for task in self.executor.finish(job):
            assert task.request.request_id not in self.answers
            self.answers[task.request.request_id] = task
        self.work.ran(job)

    def run_all(self) -> None:
        while True:
            job = self.next()
            if job is not None:
                self.execute(job)
            elif not len(self.queue):
                due_ns = self.work.due_ns()
                if due_ns is None:
                    return
                self.now_ns = max(self.now_ns, due_ns)

    def executing(self) -> list[int]:
        return [flight.request_id for flight in flight_recorder.read(self.fd).executing]

    def close(self) -> None:
        self.flights.close()
        os.close(self.fd)


def batched(**values: Any) -> Callable[[Executor], Work]:
    pads = values.get("pad_variable_length_inputs", False)
    return lambda executor: Batched(
        executor, Batcher(Batching(**values)), lambda planned: planned.signatures, pads=pads
    )


def auto(executor: Executor) -> Work:
    limit = LearnedLimit()
    batcher = AutoBatcher[Task](lambda family: limit, lambda family, rows, took_s: limit.observe(rows, took_s))
    return Batched(executor, batcher, lambda planned: planned.signatures)


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
            st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, BAD, POISON]) | st.integers(0, 99), min_size=1, max_size=8
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


def test_those_that_are_run_again_have_an_allowed_size_too(bench: Callable[..., Bench]) -> None:
    desk = bench(batched(max_batch_size=8, allowed_batch_sizes=(2, 8)))
    for number, payload in enumerate((rows(1), rows(POISON), rows(3, 4, 5))):
        desk.ask(number, payload)
    desk.run_all()
    assert desk.model.runs == [8, 2, 2, 8], "a model that takes no other sizes would refuse everybody"
    assert [desk.answers[number].code for number in range(3)] == [Code.OK, Code.INVALID_ARGUMENT, Code.OK]
    assert np.frombuffer(desk.answers[2].reply, "<i8").tolist() == [9, 16, 25]


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
    desk.work.forget(lambda request: request.request_id == 2)
    desk.now_ns = (1 << 62) + 1
    desk.run_all()
    assert desk.answers[1].code is Code.DEADLINE_EXCEEDED
    assert desk.answers[3].code is Code.OK
    assert 2 not in desk.answers
    assert desk.model.runs == [1]


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


APART = 3  # columns of what cannot share a run


class Crowd:
    """Clients whose requests may share runs, or not, at a worker: whoever has an answer may ask again.

    `overtaken`: for each request, how many runs it waited for in which nobody was who came before it was planned, or
    while its batch was not due.
    """

    def __init__(self, desk: Bench, timeout_ns: int) -> None:
        self.desk = desk
        self.overtaken: list[int] = []
        self._timeout_ns = timeout_ns
        self._came_ns: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._unplanned: deque[int] = deque()
        desk.executor._planners = {Method.PREDICT: self._plan}

    def ask(self, columns: int) -> None:
        number = len(self._came_ns)
        self._came_ns[number] = self.desk.now_ns
        self._unplanned.append(number)
        self.desk.ask(number, bytes([columns, *[1] * columns]))

    def _plan(self, payload: bytes) -> Plan:
        columns = payload[0]
        patience_ns = 0 if columns == APART else self._timeout_ns
        self._waiting[self._unplanned.popleft()] = self.desk.now_ns + patience_ns
        return plan(payload)

    def run(self, took_ns: int) -> int:
        """How many had an answer."""
        job = self.desk.next()
        if job is None:
            return 0
        mine = [part.task.request.request_id for part in job.parts]
        first_ns = min(self._came_ns[number] for number in mine)
        overtakes = [number for number, due_ns in self._waiting.items() if number not in mine and first_ns > due_ns]
        self.overtaken += overtakes
        for number in mine:
            del self._waiting[number]
        self.desk.now_ns += took_ns
        self.desk.execute(job)
        return len(mine)


def fair_works(timeout_ns: int) -> list[Callable[[Executor], Work]]:
    """The second has other limits, so that batches are full or not."""

    def family(planned: Plan) -> Any:
        assert planned.feeds is not None
        return None if planned.feeds["x"].shape[1] == APART else planned.signatures

    def auto_batched(executor: Executor) -> Work:
        limit = LearnedLimit()
        return Batched(executor, AutoBatcher[Task](lambda _: limit, lambda *_: None), family)

    def by_flags(executor: Executor) -> Work:
        return Batched(executor, Batcher(Batching(max_batch_size=3, batch_timeout_micros=timeout_ns // 1000)), family)

    return [auto_batched, by_flags]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, APART), max_size=5), st.integers(1, 9000)), min_size=1, max_size=60),
    st.integers(0, 1),
    st.sampled_from([0, 4000]),
)
def test_nobody_is_overtaken_by_those_who_come_later(
    arrivals: list[tuple[list[int], int]], which: int, timeout_ns: int
) -> None:
    desk = Bench(fair_works(timeout_ns)[which])
    crowd = Crowd(desk, timeout_ns if which else 0)
    try:
        for columns, took_ns in arrivals:
            for each in columns:
                crowd.ask(each)
            crowd.run(took_ns)
            desk.now_ns += 1
        assert crowd.overtaken == []
    finally:
        desk.close()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("flood", "patient"), [(APART, 1), (1, APART), (1, 2)])
def test_a_flood_keeps_nobody_from_ever_running(
    bench: Callable[..., Bench], which: int, flood: int, patient: int
) -> None:
    desk = bench(fair_works(1000)[which])
    crowd = Crowd(desk, 1000)
    for number in range(30):
        crowd.ask(flood)
        if number == 5:
            crowd.ask(patient)
    runs = 0
    while 6 not in desk.answers and runs < 100:
        for _ in range(crowd.run(1000)):
            crowd.ask(flood)
        runs += 1
    assert runs <= 32, "as many as came before it, and one while its batch was not due"
