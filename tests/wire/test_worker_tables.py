"""A worker's session whose small requests of one look go together as a table, on a real socket."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.status import Code
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import AutoBatcher
from modelpool.worker.executor import Executor
from modelpool.worker.executors import FixedExecutors
from modelpool.worker.jobs import Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.plan import Place, Plan
from modelpool.worker.predict_forms import Forms
from modelpool.worker.waiting_tables import WaitingTables
from modelpool.worker.work import Work
from tests.wire.conftest import WAIT_S, eventually
from tests.wire.session_world import STAY, Frontend, Start, Worker, starting

SIZE = 5  # of requests that go together; all others go by themselves


def echo(outputs: Sequence[np.ndarray], count: int, lead: int) -> np.ndarray:
    return np.concatenate([np.zeros((count, lead), np.uint8), outputs[0].reshape(count, -1)], axis=1)


def known_forms() -> Forms:
    forms = Forms()
    for _ in range(2):
        payload = bytes(SIZE)
        feeds = {"x": np.frombuffer(payload, np.uint8)}
        forms.learn(payload, Plan(feeds, ["y"], lambda outputs: outputs[0].tobytes(), ("s",), echo))
    forms.of_length(SIZE)[0].common.place = Place("family", SIZE, "key")
    return forms


def tabling(executor: Executor) -> Work:
    limit = LearnedLimit()
    batcher = AutoBatcher[Task](lambda family: limit, lambda family, rows, took_s: None)
    return Batched(executor, batcher, lambda plan: None, tables=WaitingTables(known_forms(), lambda family: limit, 100))


@pytest.fixture
def start() -> Iterator[Start]:
    with starting() as begin:
        yield begin


def together(*requests: tuple[int, bytes]) -> tuple[bytes, bytes]:
    return data.several_requests(
        [(data.pack_request(number, 0, 1, Method.PREDICT), payload) for number, payload in requests]
    )


@pytest.fixture
def busy(start: Start) -> Worker:
    """What is sent until it may `go` is found in one look. `Frontend(busy, 1)` is the one that keeps it busy."""
    return start(1000, work=tabling)


def keep_busy(worker: Worker) -> Frontend:
    frontend = Frontend(worker, 1)
    frontend.ask(0, STAY)
    assert worker.staying.wait(WAIT_S)
    return frontend


def answers_of(frontend: Frontend, count: int) -> dict[int, tuple[Code, bytes]]:
    found = {}
    for _ in range(count):
        head, reply = frontend.answer()
        assert head.request_id not in found
        found[head.request_id] = (head.code, reply)
    return found


def test_what_came_together_shares_a_run(busy: Worker) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    frontend.ask(3, b"ccccc")
    frontend.send(*together((4, b"ddddd"), (5, b"eeeee")))
    busy.go.set()
    expected = {number: (Code.OK, bytes([96 + number]) * SIZE) for number in range(1, 6)}
    assert answers_of(frontend, 6) == {0: (Code.OK, STAY), **expected}
    assert busy.executed == [STAY, b"aaaaabbbbbcccccdddddeeeee"]
    assert busy.gauge.served == 6
    frontend.close()


def test_requests_of_other_lengths_go_by_themselves(busy: Worker) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together((1, b"aaaaa"), (2, b"bb")))
    frontend.ask(3, b"ccccc")
    busy.go.set()
    assert answers_of(frontend, 4)[2] == (Code.OK, b"bb")
    assert busy.executed == [STAY, b"aaaaa", b"bb", b"ccccc"]
    frontend.close()


def test_what_came_first_goes_first(busy: Worker) -> None:
    """Also before what is alike, and is of another frontend."""
    first, second = keep_busy(busy), Frontend(busy, 2)
    large = bytes(data.SMALL_BYTES + 1)
    first.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    first.ask(3, large)
    first.send(*together((4, b"ccccc"), (5, b"ddddd")))
    busy.go.set()
    assert len(answers_of(first, 6)) == 6
    assert busy.executed == [STAY, b"aaaaabbbbb", large, b"ccccc", b"ddddd"]
    busy.executed.clear()
    busy.staying.clear()
    busy.go.clear()
    first.ask(6, STAY)
    assert busy.staying.wait(WAIT_S)
    for number in (7, 9):
        first.send(*together((number, b"a%04d" % number), (number + 1, b"a%04d" % number)))
        second.send(*together((number, b"b%04d" % number), (number + 1, b"b%04d" % number)))
    busy.go.set()
    assert len(answers_of(first, 5)) == 5
    assert len(answers_of(second, 4)) == 4
    whose = bytes(busy.executed[1][::SIZE])
    assert sorted(whose[:4]) == sorted(b"aabb"), "in turns, as the socket gives them"
    first.close()
    second.close()


def test_a_request_that_is_alone_is_no_table(busy: Worker) -> None:
    frontend = Frontend(busy, 1)
    for number in range(3):
        frontend.ask(number, b"%05d" % number)
        assert frontend.answer()[1] == b"%05d" % number
    assert len(busy.metrics.tasks) == 3
    frontend.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_cancel_behind_its_request(busy: Worker, packed: bool) -> None:
    """By itself or in a message of several."""
    frontend = keep_busy(busy)
    frontend.send(*together((1, b"aaaaa"), (2, b"bbbbb"), (3, b"ccccc")))
    if packed:
        cancel, later = data.pack_cancel(2), data.pack_request(4, 0, 1, Method.PREDICT)
        frontend.send(*data.several_requests([(cancel, b""), (later, b"ddddd")]))
    else:
        frontend.send(data.pack_cancel(2), b"")
        frontend.ask(4, b"ddddd")
    busy.go.set()
    assert set(answers_of(frontend, 4)) == {0, 1, 3, 4}
    assert b"bbbbb" not in b"".join(busy.executed)
    frontend.close()


def test_each_frontend_gets_its_own_answers(busy: Worker) -> None:
    first, second = keep_busy(busy), Frontend(busy, 2)
    first.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    second.send(*together((1, b"ccccc"), (2, b"ddddd")))
    busy.go.set()
    assert answers_of(first, 3) == {0: (Code.OK, STAY), 1: (Code.OK, b"aaaaa"), 2: (Code.OK, b"bbbbb")}
    assert answers_of(second, 2) == {1: (Code.OK, b"ccccc"), 2: (Code.OK, b"ddddd")}
    assert sorted(map(len, busy.executed)) == [len(STAY), 4 * SIZE]
    first.close()
    second.close()


def test_what_a_dead_frontend_has_asked_is_dropped(busy: Worker) -> None:
    living, dead = keep_busy(busy), Frontend(busy, 2)
    living.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    dead.send(*together((1, b"ccccc"), (2, b"ddddd")))
    busy.session.drop_frontend(Incarnation(2))
    busy.go.set()
    assert set(answers_of(living, 3)) == {0, 1, 2}
    living.ask(3, b"eeeee")
    assert set(answers_of(living, 1)) == {3}
    assert b"ccccc" not in b"".join(busy.executed)
    living.close()
    dead.close()


def test_a_malformed_message_costs_nobody_else(busy: Worker) -> None:
    frontend = keep_busy(busy)
    head, body = together((1, b"aaaaa"), (2, b"bbbbb"))
    frontend.send(head, body[:-2])
    frontend.send(*together((3, b"ccccc"), (4, b"ddddd")))
    busy.go.set()
    assert set(answers_of(frontend, 3)) == {0, 3, 4}
    frontend.close()


def test_what_waits_is_answered_before_it_stops(busy: Worker) -> None:
    frontend = keep_busy(busy)
    frontend.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    os.eventfd_write(busy.stop_fd, 1)
    busy.go.set()
    assert set(answers_of(frontend, 3)) == {0, 1, 2}
    eventually(busy.ended, "the session ends")
    frontend.close()


def test_beside_another_run(start: Start) -> None:
    worker = start(1000, work=tabling, executors=FixedExecutors(2))
    frontend = keep_busy(worker)
    frontend.send(*together((1, b"aaaaa"), (2, b"bbbbb")))
    assert answers_of(frontend, 2) == {1: (Code.OK, b"aaaaa"), 2: (Code.OK, b"bbbbb")}
    worker.go.set()
    assert set(answers_of(frontend, 1)) == {0}
    frontend.close()
