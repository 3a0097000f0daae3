"""A worker's session on a real socket, asked by a fake frontend: order, cancels, refusals, and how it stops."""

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from modelpool.supervisor.wire import data, gathering, sockets, thread_priority
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.status import Code, Unavailable
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker import session as session_module
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import Batcher
from modelpool.worker.executors import FixedExecutors
from tests.wire.conftest import WAIT_S, Clock, eventually
from tests.wire.session_world import LONG, LOST, LOST_CONTEXT, STAY, Changing, Frontend, Start, Worker, starting


@pytest.fixture(params=[False, True], ids=["each by itself", "straight"])
def is_straight(request: pytest.FixtureRequest) -> bool:
    wanted: bool = request.param
    return wanted


@pytest.fixture
def start(is_straight: bool) -> Iterator[Start]:
    with starting(straight=is_straight) as begin:
        yield begin


def test_a_socket_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "w1"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with pytest.raises(Unavailable, match=f"{path} cannot be made: No such file or directory"):
        session_module.bind(context, sockets.ipc_endpoint(path))
    context.term()  # nothing of it is left open


def test_answers_in_the_order_of_arrival(start: Start, tmp_path: Path, is_straight: bool) -> None:
    worker = start(1000, f"ipc://{tmp_path}/w")
    frontend = Frontend(worker, 1)
    for number in range(300):
        frontend.ask(number, b"%d" % number)
    big = os.urandom(300_000)
    frontend.ask(300, big)
    assert frontend.answers(300) == list(range(300))
    head, reply = frontend.answer()
    assert (head.request_id, head.code, head.retry_after_ms, reply) == (300, Code.OK, 0, big)
    assert worker.executed[:300] == [b"%d" % number for number in range(300)]
    assert worker.gauge.served == 301
    assert (worker.metrics.straight > 200) == is_straight
    frontend.close()


def test_one_that_cannot_see_its_threads_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail(pid: int, *beginnings: str) -> set[int]:
        asked.append(pid)
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(thread_priority, "named", fail)
    monkeypatch.setattr(gathering, "ACTIVE_CPUS", 0.0)
    frontend = Frontend(start(1000), 1)
    frontend.ask(7, b"x")
    assert frontend.answers(1) == [7]
    eventually(lambda: asked, "it has looked")
    frontend.ask(8, b"x")
    assert frontend.answers(1) == [8]
    frontend.close()


def busy_with_four(start: Start, clock: Clock) -> tuple[Worker, Frontend]:
    """A worker that executes the first of four long requests, and a frontend that has asked them all."""
    worker = start(1000)
    worker.clock = clock
    frontend = Frontend(worker, 1)
    frontend.ask(0, LONG)
    assert worker.began.acquire(timeout=WAIT_S)
    for number in (1, 2, 3):
        frontend.ask(number, LONG)
    return worker, frontend


def test_an_answer_leaves_before_the_next_run_ends(start: Start, clock: Clock) -> None:
    worker, frontend = busy_with_four(start, clock)
    for number in (0, 1, 2, 3):
        worker.end.release()
        head, _ = frontend.answer()
        assert (head.request_id, head.code) == (number, Code.OK)
    frontend.close()


def test_a_busy_worker_counts_as_well(start: Start, clock: Clock) -> None:
    worker, frontend = busy_with_four(start, clock)
    for _ in range(3):
        worker.end.release()
        assert worker.began.acquire(timeout=WAIT_S)
    assert worker.metrics.settled[-1] > 0
    worker.end.release()
    assert frontend.answers(4) == [0, 1, 2, 3]
    frontend.close()


def test_a_worker_that_waits_counts_soon_and_many_at_once(start: Start, clock: Clock) -> None:
    worker = start(1000)
    frontend = Frontend(worker, 1)
    for number in range(3):
        frontend.ask(number, b"x")
        assert frontend.answers(1) == [number]
    (start_count,) = worker.metrics.settled
    assert start_count <= 1, "nothing but the start, and what came with it"
    clock.now_ns += session_module._SETTLE_IDLE_NS
    eventually(lambda: worker.metrics.settled == [start_count, 3], "what was answered is counted")
    frontend.close()


def test_a_worker_at_which_nobody_counts_does_not_wake_up_to_count(start: Start, clock: Clock) -> None:
    worker = start(1000, counted=False)
    worker.clock = clock
    frontend = Frontend(worker, 1)
    for number in range(3):
        frontend.ask(number, b"x")
        assert frontend.answers(1) == [number]
        # The worker waits by this time at the latest once it has answered the next one, which is before the last one.
        clock.now_ns += session_module._SETTLE_IDLE_NS
    assert worker.metrics.settled == [0], "nothing but the start"
    assert worker.metrics.tasks == []
    frontend.close()


def test_no_answer_is_kept_once_it_was_sent(start: Start) -> None:
    """What counts a request a while later keeps neither what it asked nor what it was answered."""
    worker = start(1000)
    frontend = Frontend(worker, 1)
    for number in range(3):
        frontend.ask(number, os.urandom(100_000))
    assert frontend.answers(3) == [0, 1, 2]
    tasks = worker.metrics.tasks
    assert len(tasks) == 3
    eventually(lambda: not any(task.reply or task.request.payload or task.outputs for task in tasks), "nothing is kept")
    frontend.close()


def test_a_cancelled_request_is_not_executed(start: Start) -> None:
    worker = start(1000)
    frontend, other = Frontend(worker, 1), Frontend(worker, 2)
    frontend.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    for number in (2, 3, 4):
        frontend.ask(number, b"%d" % number)
    other.ask(3, b"other")
    frontend.send(data.pack_cancel(3), b"")
    frontend.send(data.pack_cancel(1), b"")
    worker.go.set()
    assert frontend.answers(3) == [1, 2, 4]
    assert other.answers(1) == [3]
    assert b"3" not in worker.executed
    frontend.close()
    other.close()


def test_a_full_queue_refuses_and_says_when_to_come_again(start: Start) -> None:
    worker = start(2)
    frontend = Frontend(worker, 1)
    frontend.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    for number in (2, 3, 4):
        frontend.ask(number, b"")
    worker.go.set()
    answers = dict((head.request_id, (head, text)) for head, text in (frontend.answer() for _ in range(4)))
    head, text = answers[4]
    assert (head.code, text) == (
        Code.UNAVAILABLE,
        b"The batch scheduling queue to which this task was submitted is full",
    )
    assert head.retry_after_ms >= 10
    assert all(answers[number][0].code is Code.OK for number in (1, 2, 3))
    frontend.close()


def test_a_lost_cuda_context_is_answered_and_ends_the_session_before_the_next_run(start: Start) -> None:
    worker = start(1000)
    frontend = Frontend(worker, 1)
    frontend.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    frontend.ask(2, LOST)
    frontend.ask(3, b"for the next worker")
    worker.go.set()
    answers = [frontend.answer() for _ in range(2)]
    eventually(worker.ended, "the session ends")
    frontend.close()
    assert [(head.request_id, head.code) for head, _ in answers] == [(1, Code.OK), (2, Code.INTERNAL)]
    assert answers[1][1] == LOST_CONTEXT.encode()
    assert worker.why_broken == [LOST_CONTEXT]
    assert worker.executed == [STAY]
    assert worker.metrics.settled[-1] == 2


def test_what_a_dead_frontend_has_asked_is_dropped(start: Start) -> None:
    worker = start(1000)
    dead, living = Frontend(worker, 1), Frontend(worker, 2)
    dead.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    dead.ask(2, b"dead")
    living.ask(7, b"living")
    worker.session.drop_frontend(Incarnation(1))
    dead.ask(3, b"later")
    worker.go.set()
    assert living.answers(1) == [7]
    living.ask(8, b"")
    assert living.answers(1) == [8]
    assert worker.executed == [STAY, b"living", b""]
    dead.close()
    living.close()


def test_malformed_messages_harm_nobody(start: Start) -> None:
    worker = start(1000)
    frontend = Frontend(worker, 1)
    stranger = worker.context.socket(zmq.DEALER)
    stranger.connect(worker.endpoint)
    stranger.send_multipart([data.pack_request(1, 0, 1, Method.PREDICT), b"x"])
    for frames in ([b"one"], [b"head", b"x"], [b"a", b"b", b"c"], [b"a", b"b", b"c", b"d"]):
        frontend.send(*frames)
    frontend.ask(5, b"x")
    assert frontend.answers(1) == [5]
    assert worker.executed == [b"x"]
    stranger.close(0)
    frontend.close()


def test_a_batch_may_wait_for_ever_but_not_for_its_end(start: Start) -> None:
    for_ever = Batching(max_batch_size=2, batch_timeout_micros=(1 << 63) - 1)
    worker = start(
        1000, work=lambda executor: Batched(executor, Batcher(for_ever), lambda planned: "family", pads=False)
    )
    frontend = Frontend(worker, 1)
    frontend.ask(1, b"a")
    frontend.ask(2, b"bc")  # more rows than are left
    assert frontend.answer()[1] == b"a"
    assert frontend.answer()[1] == b"bc"
    frontend.ask(3, b"d")
    os.eventfd_write(worker.stop_fd, 1)
    assert frontend.answer()[1] == b"d"
    frontend.close()


def test_what_waits_is_answered_before_it_stops(start: Start) -> None:
    worker = start(1000)
    frontend = Frontend(worker, 1)
    frontend.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    frontend.ask(2, b"")
    os.eventfd_write(worker.stop_fd, 1)
    worker.go.set()
    assert frontend.answers(2) == [1, 2]
    eventually(worker.ended, "the session ends")
    frontend.close()


def test_executors_come_and_go_while_it_serves(start: Start) -> None:
    changing = Changing(1, 3, 2)
    worker = start(1000, executors=changing)
    frontend = Frontend(worker, 1)
    for number in range(300):
        frontend.ask(number, b"%d" % number)
    answers = dict(frontend.answer() for _ in range(300))
    assert {head.request_id: reply for head, reply in answers.items()} == {n: b"%d" % n for n in range(300)}
    assert changing.requests == 300
    frontend.close()


def test_from_two_executors_to_one(start: Start) -> None:
    changing = Changing(2)
    worker = start(1000, executors=changing)
    frontend = Frontend(worker, 1)
    frontend.ask(1, STAY)
    frontend.ask(2, b"beside it")
    assert frontend.answers(1) == [2]
    changing.counts = itertools.repeat(1)
    changing.count = 1
    frontend.ask(3, b"after it")
    worker.go.set()
    assert frontend.answers(2) == [1, 3]
    assert worker.executed == [b"beside it", STAY, b"after it"]
    frontend.close()


def test_what_comes_while_all_executors_are_at_it_is_read_at_once(start: Start, clock: Clock) -> None:
    """The clock stands still: nothing is read because it is time to."""
    worker = start(1, executors=FixedExecutors(2))
    worker.clock = clock
    frontend = Frontend(worker, 1)
    for number in (1, 2):
        frontend.ask(number, LONG)
        assert worker.began.acquire(timeout=WAIT_S)
    frontend.ask(3, b"waits")
    for number in (4, 5):
        frontend.ask(number, b"one too many")
        head, _ = frontend.answer()
        assert (head.request_id, head.code) == (number, Code.UNAVAILABLE)
    worker.end.release(2)
    assert sorted(frontend.answers(3)) == [1, 2, 3]
    frontend.close()


def test_not_more_is_read_at_a_time_than_the_queue_holds(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one message has several requests, or none."""
    monkeypatch.setattr(session_module, "CAPACITY", 2)
    worker = start(2)
    worker.clock = clock
    frontend = Frontend(worker, 1)
    frontend.ask(0, STAY)
    assert worker.staying.wait(WAIT_S)
    frontend.send(*data.several_requests([]))
    for number in (1, 3, 5):
        together = [(data.pack_request(each, 0, 1, Method.PREDICT), b"") for each in (number, number + 1)]
        frontend.send(*data.several_requests(together))
    worker.go.set()
    answers = [frontend.answer()[0] for _ in range(7)]
    assert [(head.request_id, head.code) for head in answers] == [(number, Code.OK) for number in range(7)]
    frontend.close()
