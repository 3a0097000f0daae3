"""A worker's session that runs small requests straight from the bytes they came in, on a real socket."""

from collections.abc import Iterator

import pytest

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import AutoBatcher, Batcher
from modelpool.worker.executor import Executor
from modelpool.worker.executors import FixedExecutors
from modelpool.worker.jobs import Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.predict_forms import Forms
from modelpool.worker.request_queue import RequestQueue, Unopened
from modelpool.worker.waiting_tables import WaitingTables
from modelpool.worker.work import Work
from tests.wire import session_world
from tests.wire.conftest import WAIT_S, Clock, eventually
from tests.wire.session_world import BAD, LARGE, LARGE_BYTES, LONG, STAY, Frontend, Start, Worker, starting


@pytest.fixture
def start() -> Iterator[Start]:
    with starting(straight=True) as begin:
        yield begin


@pytest.fixture
def busy(start: Start, request: pytest.FixtureRequest) -> Worker:
    """What is sent until it may `go` is found in one look."""
    worker = start(1000)
    if "clock" in request.fixturenames:
        worker.clock = request.getfixturevalue("clock")
    return worker


def keep_busy(worker: Worker) -> Frontend:
    frontend = Frontend(worker, 1)
    frontend.ask(0, STAY)
    assert worker.staying.wait(WAIT_S)
    return frontend


def together(*requests: tuple[int, bytes]) -> tuple[bytes, bytes]:
    return data.several_requests(
        [(data.pack_request(number, 0, 1, Method.PREDICT), payload) for number, payload in requests]
    )


def answers_of(frontend: Frontend, count: int) -> list[tuple[int, Code, bytes]]:
    return [(head.request_id, head.code, reply) for head, reply in (frontend.answer() for _ in range(count))]


@pytest.mark.parametrize(
    ("payload", "answer"),
    [(BAD, (Code.INVALID_ARGUMENT, b"bad")), (LARGE, (Code.OK, bytes(LARGE_BYTES)))],
    ids=["refused", "large"],
)
def test_an_answer_that_is_out_of_the_ordinary_costs_nobody_else(
    busy: Worker, payload: bytes, answer: tuple[Code, bytes]
) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together((1, b"a"), (2, payload), (3, b"c")))
    frontend.ask(4, payload)
    frontend.ask(5, b"e")
    busy.go.set()
    found = answers_of(frontend, 6)
    assert found == [
        (0, Code.OK, STAY),
        (1, Code.OK, b"a"),
        (2, *answer),
        (3, Code.OK, b"c"),
        (4, *answer),
        (5, Code.OK, b"e"),
    ]
    assert busy.metrics.straight >= 4
    frontend.close()


def test_what_leaves_together_is_one_message_to_each_frontend(busy: Worker, clock: Clock) -> None:
    """The clock stands still: nothing leaves because it is time to."""
    first, second = keep_busy(busy), Frontend(busy, 2)
    for number in range(1, 7):
        first.ask(number, b"ab"[: 1 + number % 2])  # one form after the other
        second.ask(number, b"x")
    busy.go.set()
    assert [answer[0] for answer in answers_of(first, 7)] == list(range(7))
    assert [answer[0] for answer in answers_of(second, 6)] == list(range(1, 7))
    assert (first.messages, second.messages) == (1, 1)
    first.close()
    second.close()


def test_not_more_than_sixteen_answers_wait_to_leave(busy: Worker, clock: Clock) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together(*((number, b"a") for number in range(1, 40))))
    busy.go.set()
    assert frontend.answers(40) == list(range(40))
    assert (frontend.messages, busy.metrics.straight) == (3, 40)
    frontend.close()


def test_the_first_answer_after_a_pause_waits_for_no_other_run(
    busy: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_world, "LONG_NS", 300_000)  # less than answers may wait else
    frontend = Frontend(busy, 1)
    frontend.ask(0, b"a")
    assert frontend.answers(1) == [0]
    clock.now_ns += 10_000_000
    busy.end.release()
    frontend.send(*together((1, LONG), (2, STAY)))
    assert frontend.answers(1) == [1]
    busy.go.set()
    assert answers_of(frontend, 1) == [(2, Code.OK, STAY)]
    assert busy.metrics.straight == 3
    frontend.close()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was left unopened."""
    found: list[bytes] = []
    put = RequestQueue.put_unopened

    def noted(queue: RequestQueue, message: Unopened, count: int) -> bool:
        found.append(message.raw)
        return put(queue, message, count)

    monkeypatch.setattr(RequestQueue, "put_unopened", noted)
    return found


def test_lengths_that_are_not_known_go_by_themselves(busy: Worker, left: list[bytes]) -> None:
    frontend = keep_busy(busy)
    left.clear()
    frontend.send(*together((1, b"eight by"), (2, b"a")))
    frontend.ask(3, b"nine byte")
    busy.go.set()
    assert [answer[0] for answer in answers_of(frontend, 4)] == list(range(4))
    assert busy.executed == [STAY, b"eight by", b"a", b"nine byte"]
    assert not left
    frontend.close()


def test_one_that_goes_by_itself_does_not_keep_the_next_from_going_straight(busy: Worker) -> None:
    frontend = keep_busy(busy)
    frontend.ask(1, b"nine byte")
    frontend.send(*together((2, b"a"), (3, b"b")))
    frontend.ask(4, b"nine byte")
    frontend.ask(5, b"c")
    busy.go.set()
    assert frontend.answers(6) == list(range(6))
    assert busy.executed == [STAY, b"nine byte", b"a", b"b", b"nine byte", b"c"]
    assert busy.metrics.straight == 4, "all that have a known form"
    frontend.close()


def test_with_batching_auto_one_that_is_alone_goes_straight_and_is_learned_of(start: Start) -> None:
    learned: list[int] = []

    def auto(executor: Executor) -> Work:
        limit = LearnedLimit()
        batcher = AutoBatcher[Task](lambda family: limit, lambda family, rows, took_s: learned.append(rows))
        return Batched(executor, batcher, lambda plan: "s", tables=WaitingTables(Forms(), lambda family: limit, 100))

    worker = start(1000, work=auto)
    frontend = Frontend(worker, 1)
    for number in range(5):  # after the first it is known that they may share runs
        frontend.ask(number, b"abc")
        assert frontend.answer()[1] == b"abc"
    eventually(lambda: worker.metrics.straight == 4, "they are counted")
    eventually(lambda: len(learned) == 5, "and the batcher is told")
    frontend.close()


def test_with_tf_serving_s_batching_nothing_waits_for_what_never_comes(start: Start, left: list[bytes]) -> None:
    def strict(executor: Executor) -> Work:
        return Batched(executor, Batcher[Task](Batching(batch_timeout_micros=0)), lambda plan: "s")

    frontend = Frontend(start(1000, work=strict), 1)
    frontend.send(*together((1, b"a"), (2, b"b")))
    assert frontend.answers(2) == [1, 2]
    assert not left
    frontend.close()


def test_a_malformed_message_does_not_take_in_the_next(busy: Worker) -> None:
    frontend = keep_busy(busy)
    head, body = together((1, b"a"), (2, b"bb"))
    reaches_too_far = body[: -len(b"bb") - data.REQUEST_HEAD_BYTES] + (50).to_bytes(4, "little") + body[-26 - 2 :]
    frontend.send(*together((3, b"c")))
    frontend.send(head, reaches_too_far)
    frontend.send(*together((4, b"d")))
    busy.go.set()
    assert [answer[0] for answer in answers_of(frontend, 3)] == [0, 3, 4]
    assert busy.executed == [STAY, b"c", b"d"]
    frontend.close()


def test_nothing_goes_straight_while_somebody_wants_to_see_each(busy: Worker) -> None:
    frontend = Frontend(busy, 1)
    frontend.ask(1, b"a")
    assert frontend.answers(1) == [1]
    straight = busy.metrics.straight
    assert straight == 1
    busy.request_log.on = True
    frontend.send(*together((2, b"b"), (3, b"c")))
    assert frontend.answers(2) == [2, 3]
    assert busy.request_log.logged == [b"b", b"c"]
    assert busy.metrics.straight == straight
    frontend.close()


def test_also_what_waited_already_when_somebody_came_to_see_each(busy: Worker) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together(*((number, b"a") for number in range(1, 40))))
    busy.request_log.on = True
    busy.go.set()
    assert frontend.answers(40) == list(range(40))
    assert len(busy.request_log.logged) == 39
    frontend.close()


def test_what_waits_for_two_executors_goes_to_both(start: Start) -> None:
    worker = start(1000, executors=FixedExecutors(2))
    frontend = keep_busy(worker)
    frontend.send(*together((1, b"a"), (2, b"b")))
    assert sorted(frontend.answers(2)) == [1, 2]
    worker.go.set()
    assert frontend.answers(1) == [0]
    assert worker.metrics.straight == 0
    frontend.close()


def test_a_run_that_stands_still_is_seen(busy: Worker) -> None:
    frontend = keep_busy(busy)
    eventually(lambda: busy.gauge.heartbeat().busy_s > 0.01, "it has stood still for a while")
    assert busy.gauge.heartbeat().in_flight == 1
    busy.go.set()
    assert frontend.answers(1) == [0]
    eventually(lambda: busy.gauge.heartbeat().in_flight == 0, "nothing is run")
    assert (busy.gauge.served, busy.metrics.straight) == (1, 1)
    frontend.close()
