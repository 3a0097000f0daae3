"""A worker's answers on a real socket, to frontends that stand still or are dead."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from modelpool.supervisor.arenas import Arenas
from modelpool.supervisor.wire import arena, data, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code
from modelpool.worker.answers import Answers
from modelpool.worker.jobs import Task
from modelpool.worker.request_queue import Request
from modelpool.worker.shared_payloads import SharedPayloads
from tests.wire.conftest import WAIT_S, eventually

PEER = sockets.identity(Peer.FRONTEND, Incarnation(1))


class Pair:
    """A worker's socket, and the one of the frontend 1, which is read when a test wants to."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        sockets.configure_router(self.router, 1)
        self.router.bind("inproc://w")
        self.dealer = self.context.socket(zmq.DEALER)
        sockets.configure_dealer(self.dealer, PEER, 1)
        self.dealer.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
        self.dealer.connect("inproc://w")
        self.dealer.send(b"here")
        assert self.router.recv_multipart() == [PEER, b"here"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.router.close(0)
    made.dealer.close(0)
    made.context.term()


def no_hint(code: Code) -> int:
    return 0


def test_a_frontend_that_stood_still_gets_all_its_blocks_back(pair: Pair) -> None:
    shared = SharedPayloads(None, Incarnation(1))
    answers = Answers(pair.router, shared, ())
    for request_id in range(10):
        shared.refused(PEER, request_id)
        answers.send((), no_hint)
    assert not shared.idle  # to be told a while later
    returned: set[int] = set()

    def told() -> bool:
        answers.send((), no_hint)
        while pair.dealer.poll(0):
            returned.update(data.unpack_returned(pair.dealer.recv()))
        return returned == set(range(10))

    eventually(told, "it is told of all")
    assert shared.idle


def test_a_frontend_that_is_gone_is_told_nothing(pair: Pair) -> None:
    shared = SharedPayloads(None, Incarnation(1))
    shared.refused(b"frontend:9", 1)
    Answers(pair.router, shared, ()).send((), no_hint)
    assert shared.idle


def large(peer: bytes, frontend: int, request_id: int) -> Task:
    task = Task(Request(peer, frontend, request_id, 0, 1, 2, Method.PREDICT, False, b""))
    task.reply = bytes(arena.ANSWER_BYTES)
    return task


def test_what_was_lent_is_free_again_where_it_could_not_be_sent(pair: Pair, tmp_path: Path) -> None:
    arenas = Arenas(tmp_path, 8 << 20, 1 << 30)
    arenas.make(Peer.WORKER, Incarnation(1))
    answers = Answers(pair.router, SharedPayloads(tmp_path, Incarnation(1)), ())
    for number in range(3 * (8 << 20) // arena.ANSWER_BYTES):
        answers.send([large(b"frontend:9", 9, number)], no_hint)
    answers.send([large(PEER, 1, 7)], no_hint)
    assert len(pair.dealer.recv_multipart()) == 3
    arenas.close()


@pytest.mark.parametrize("gone", [(), (1,)])
def test_nothing_is_lent_to_a_dead_frontend(pair: Pair, tmp_path: Path, gone: tuple[int, ...]) -> None:
    """What was executed when it died is answered after all that was lent to it was taken back."""
    arenas = Arenas(tmp_path, 8 << 20, 1 << 30)
    arenas.make(Peer.WORKER, Incarnation(1))
    shared = SharedPayloads(tmp_path, Incarnation(1))
    Answers(pair.router, shared, gone).send([large(PEER, 1, 7)], no_hint)
    head, payload, *reference = pair.dealer.recv_multipart()
    assert data.unpack_reply(head).request_id == 7
    assert bool(reference) is not bool(gone)
    assert bool(payload) is bool(gone)
    arenas.close()
