"""Payloads in shared memory: a real frontend and a fake worker, a real session and a fake frontend.

Peers die in the middle, lie about where a payload is, or write garbage where they have answered.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import grpc
import pytest

from modelpool.supervisor.arenas import Arenas
from modelpool.supervisor.wire import arena, data, sockets
from modelpool.supervisor.wire.arena import Arena, Reader
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import WorkerDied
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code
from tests.wire.conftest import WAIT_S, Clock, FakeFrontendOwner, FakeWorker, Request, Stage, eventually, version
from tests.wire.session_world import KEPT, LONG, LONG_NS, STAY, Frontend, Worker
from tests.wire.test_settling import REQUEST_M, ask, refusal

SIZE = 8 << 20
FRONTEND, WORKER = Incarnation(1), Incarnation(1)


def large(mark: bytes) -> bytes:
    """A request of the model m with an unknown field, too large for a frame."""
    filling = mark * (arena.REQUEST_BYTES // len(mark) + 1)
    return REQUEST_M + b"\x2a" + b"\x80\x80\x08" + filling[: arena.REQUEST_BYTES]


class SharingWorker(FakeWorker):
    """Reads requests from the frontend's shared memory, and answers through its own, by a `wrong` reference if told."""

    def __init__(self, stage: Stage, name: str) -> None:
        incarnation = len(stage.workers) + 1
        reader = Reader.open(sockets.arena(stage.folder, Peer.FRONTEND, FRONTEND))
        writer = Arena.open(sockets.arena(stage.folder, Peer.WORKER, Incarnation(incarnation)))
        assert reader is not None
        assert writer is not None
        self.reader, self.writer = reader, writer
        self.lent: dict[int, arena.Block] = {}
        self.wrong = b""
        self.returned: list[int] = []
        self.references: list[bytes] = []
        super().__init__(stage.context, stage.folder, incarnation, name)
        stage.workers.append(self)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(10):
                sender, head, *frames = self._socket.recv_multipart()
                header = data.unpack_request(head)
                if header.method is Method.SEVERAL:
                    for each, payload in data.unpack_requests(frames[0]):
                        self._take_or_free(sender, data.RequestHeader(*each), [payload])
                else:
                    self._take_or_free(sender, header, frames)
            while not self.hold.is_set() and self.held:
                self._reply(self.held.pop(0))
            while self._raw:
                self._socket.send_multipart(self._raw.pop(0))
        self._socket.close(int(WAIT_S * 1000))

    def _take_or_free(self, sender: bytes, header: data.RequestHeader, frames: list[bytes]) -> None:
        if header.method is Method.RETURN:
            self.returned.append(header.request_id)
            self.writer.free(self.lent.pop(header.request_id))
            return
        payload = frames[-1]
        if len(frames) == 2:
            self.references.append(payload)
            payload = self.reader.read(payload)
        self._take(Request(sender, header, payload))

    def _reply(self, request: Request) -> None:
        request_id = request.header.request_id
        block = self.writer.put([self.name.encode(), request.payload])
        frames = [self.name.encode() + request.payload]
        if block is not None:
            self.lent[request_id] = block
            frames = [b"", self.wrong or block.reference]
        self._socket.send_multipart([request.sender, data.pack_reply(request_id, Code.OK), *frames])
        self._socket.send_multipart([request.sender, data.pack_returned([request_id])])


@pytest.fixture
def arenas(stage: Stage) -> Iterator[Arenas]:
    """Made before the frontend is: fixtures come in the order of a test's arguments."""
    made = Arenas(stage.folder, SIZE, 100 * SIZE)
    made.make(Peer.FRONTEND, FRONTEND)
    for number in (1, 2):
        made.make(Peer.WORKER, Incarnation(number))
    yield made
    made.close()


def routed(*workers: FakeWorker) -> ModelRoute:
    return ModelRoute("m", (version(1, *workers),), {})


def used_bytes(stage: Stage, peer: Peer, incarnation: int = 1) -> int:
    return os.stat(sockets.arena(stage.folder, peer, Incarnation(incarnation))).st_blocks * 512


def test_requests_and_answers_go_through_and_all_memory_comes_back(
    stage: Stage, arenas: Arenas, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker = SharingWorker(stage, "w")
    frontend.route(routed(worker))
    for number in range(200):  # many times what there is room for
        payload = large(b"%d," % number)
        assert ask(channel, payload).result(WAIT_S) == b"w" + payload
    assert ask(channel, REQUEST_M).result(WAIT_S) == b"w" + REQUEST_M
    assert len(worker.references) == 200
    eventually(lambda: len(worker.returned) == 201, "all answers are given back")
    eventually(lambda: used_bytes(stage, Peer.FRONTEND) == 0, "the frontend's memory is given back")


def test_what_does_not_fit_goes_by_the_socket(
    stage: Stage, arenas: Arenas, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker = SharingWorker(stage, "w")
    worker.hold.set()
    frontend.route(routed(worker))
    payload = large(b"x")
    calls = [ask(channel, payload) for _ in range(70)]
    eventually(lambda: len(worker.seen) == 70, "all requests")
    assert SIZE // 2 < len(worker.references) * len(payload) < SIZE
    assert all(request.payload == payload for request in worker.seen)
    worker.hold.clear()
    assert all(call.result(WAIT_S) == b"w" + payload for call in calls)


def test_a_lie_about_where_an_answer_is_costs_that_answer_only(
    stage: Stage, arenas: Arenas, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker = SharingWorker(stage, "w")
    frontend.route(routed(worker))
    for wrong in (arena._REFERENCE.pack(64, 1 << 40, 1), arena._REFERENCE.pack(0, 1, 1), b"short", b"x" * 24):
        worker.wrong = wrong
        code, text = refusal(ask(channel, large(b"x")))
        assert code == "INTERNAL"
        assert text.startswith("The answer cannot be read from the worker's shared memory: reference: expected ")
    worker.wrong = b""
    assert ask(channel, large(b"y")).result(WAIT_S) == b"w" + large(b"y")
    sender = worker.seen[0].sender
    for frames in ([b"odd"], [b"", b"", b""], [b"a", b"b", b"c", b"d"], [data.pack_returned([1, 2, 3, 1 << 63])]):
        worker.send_raw([sender, *frames])
    assert ask(channel, large(b"z")).result(WAIT_S) == b"w" + large(b"z")


def test_requests_of_a_dead_worker_are_sent_again_whole_and_its_blocks_are_free(
    stage: Stage, arenas: Arenas, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    doomed, other = SharingWorker(stage, "doomed"), SharingWorker(stage, "other")
    doomed.hold.set()
    frontend.route(routed(doomed))
    payloads = [large(b"%d," % number) for number in range(20)]
    calls = [ask(channel, payload) for payload in payloads]
    held = eventually(lambda: doomed.held if len(doomed.held) == 20 else [], "the requests")
    executing = (held[0].header.request_id,)
    doomed.stop()
    arenas.remove(Peer.WORKER, doomed.incarnation)
    frontend.send(WorkerDied(doomed.incarnation, "killed by SIGKILL", executing, ()))
    frontend.route(routed(other))
    assert [call.result(WAIT_S) for call in calls] == [b"other" + payload for payload in payloads]
    eventually(lambda: used_bytes(stage, Peer.FRONTEND) == 0, "the frontend's memory is given back")


def test_an_answer_that_a_worker_had_written_before_it_died_is_read(
    stage: Stage, arenas: Arenas, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker = SharingWorker(stage, "w")
    worker.hold.set()
    frontend.route(routed(worker))
    call = ask(channel, large(b"x"))
    eventually(lambda: worker.held, "the request")
    arenas.remove(Peer.WORKER, worker.incarnation)  # nobody can open it any more
    worker.hold.clear()
    assert call.result(WAIT_S) == b"w" + large(b"x")
    worker.stop()
    frontend.send(WorkerDied(worker.incarnation, "killed by SIGKILL", (), ()))


# -- a worker's session ----------------------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Arenas(tmp_path, SIZE, 100 * SIZE)
    made.make(Peer.WORKER, WORKER)
    for number in (1, 2):
        made.make(Peer.FRONTEND, Incarnation(number))
    started = Worker("inproc://w", 1000, tmp_path)
    yield started
    for frontend in SharingFrontend.all:
        frontend.close()
    SharingFrontend.all.clear()
    started.close()
    made.close()


class SharingFrontend(Frontend):
    all: ClassVar[list[Frontend]] = []
    """Those of a test, to be closed with it."""

    def __init__(self, worker: Worker, folder: Path, incarnation: int) -> None:
        super().__init__(worker, incarnation)
        opened = Arena.open(sockets.arena(folder, Peer.FRONTEND, Incarnation(incarnation)))
        assert opened is not None
        self.all.append(self)
        self.arena = opened
        self.returned: list[int] = []
        self.apart: list[list[bytes]] = []

    def share(self, request_id: int, payload: bytes) -> arena.Block:
        block = self.arena.put([payload])
        assert block is not None
        self.refer(request_id, block.reference)
        return block

    def refer(self, request_id: int, reference: bytes) -> None:
        self.send(data.pack_request(request_id, 0, 1, Method.PREDICT), b"", reference)

    def next(self) -> list[bytes]:
        """The next message that is not about what was returned."""
        if self.apart:
            return self.apart.pop(0)
        while len(frames := self._socket.recv_multipart()) == 1:
            self.returned += data.unpack_returned(frames[0])
        if data.unpack_reply(frames[0]).request_id == data.NO_REQUEST:
            self.apart = [[data.pack_reply(*head), payload] for *head, payload in data.unpack_replies(frames)]
            return self.apart.pop(0)
        return frames

    def wait_returned(self, *request_ids: int) -> None:
        while not set(request_ids) <= set(self.returned):
            (frame,) = self._socket.recv_multipart()
            self.returned += data.unpack_returned(frame)


def test_a_session_reads_and_answers_through_shared_memory(worker: Worker, tmp_path: Path) -> None:
    frontend = SharingFrontend(worker, tmp_path, 1)
    answers = Reader.open(sockets.arena(tmp_path, Peer.WORKER, WORKER))
    assert answers is not None
    for number in range(300):  # many times what there is room for
        payload = b"%d," % number * 80_000 + bytes(arena.ANSWER_BYTES)
        block = frontend.share(number, payload)
        head, empty, reference = frontend.next()
        assert (data.unpack_reply(head).request_id, empty) == (number, b"")
        assert answers.read(reference) == payload
        frontend.send(data.pack_return(number), b"")
        frontend.wait_returned(number)
        frontend.arena.free(block)


def test_memory_is_given_back_while_small_requests_come(clock: Clock, worker: Worker, tmp_path: Path) -> None:
    worker.clock = clock
    frontend = SharingFrontend(worker, tmp_path, 1)
    frontend.share(0, os.urandom(1 << 20))
    assert len(frontend.next()) == 3
    held = os.stat(sockets.arena(tmp_path, Peer.WORKER, WORKER)).st_blocks * 512
    assert held >= 1 << 20
    frontend.send(data.pack_return(0), b"")
    for number in range(1, 4 * 1_000_000_000 // LONG_NS):
        worker.end.release()
        frontend.ask(number, LONG)
        assert data.unpack_reply(frontend.next()[0]).request_id == number
    assert os.stat(sockets.arena(tmp_path, Peer.WORKER, WORKER)).st_blocks == 0


def test_what_is_cancelled_or_refused_is_given_back_as_well(worker: Worker, tmp_path: Path) -> None:
    frontend = SharingFrontend(worker, tmp_path, 1)
    frontend.ask(1, STAY)
    assert worker.staying.wait(WAIT_S)
    frontend.share(2, b"x" * 200_000)
    frontend.share(3, b"y" * 200_000)
    frontend.send(data.pack_cancel(2), b"")
    frontend.refer(4, b"x" * 24)
    frontend.refer(5, b"short")
    worker.go.set()
    found = {}
    for _ in range(4):
        head, *rest = frontend.next()
        found[data.unpack_reply(head).request_id] = (data.unpack_reply(head).code, rest)
    assert sorted(found) == [1, 3, 4, 5]
    assert found[4][0] is Code.INVALID_ARGUMENT
    assert found[4][1][0].startswith(b"reference: expected a place in")
    assert found[5][1] == [b"reference: expected 24 bytes, got 5"]
    frontend.wait_returned(2, 3, 4, 5)
    assert b"x" * 200_000 not in worker.executed


def test_what_the_model_keeps_is_given_back_after_a_while(clock: Clock, worker: Worker, tmp_path: Path) -> None:
    worker.clock = clock
    frontend = SharingFrontend(worker, tmp_path, 1)
    payloads = (b"first", KEPT + bytes(200_000), bytes(200_000))
    for number, payload in enumerate(payloads):
        frontend.share(number, payload)
        frontend.next()
    frontend.wait_returned(0, 2)
    assert 1 not in frontend.returned
    clock.now_ns += 1_000_000_000  # nothing comes: it wakes up for it
    frontend.wait_returned(1)


def test_answers_that_a_dead_frontend_kept_are_free_again(worker: Worker, tmp_path: Path) -> None:
    dead, living = SharingFrontend(worker, tmp_path, 1), SharingFrontend(worker, tmp_path, 2)
    payload = os.urandom(1 << 20)
    for number in range(7):
        dead.share(number, payload)
        assert len(dead.next()) == 3
    living.share(1, payload)
    assert living.next()[1:] == [payload]  # there is no room any more
    worker.session.drop_frontend(Incarnation(1))

    def shared_again() -> bool:
        living.share(2, payload)
        return len(living.next()) == 3

    eventually(shared_again, "an answer through shared memory")


def test_a_frontend_without_shared_memory_is_told(worker: Worker, tmp_path: Path) -> None:
    unknown = Frontend(worker, 9)
    unknown.send(data.pack_request(1, 0, 1, Method.PREDICT), b"", arena._REFERENCE.pack(64, 1, 1))
    head, text = unknown.answer()
    assert (head.code, text) == (Code.UNAVAILABLE, b"The shared memory of frontend 9 cannot be opened")
    unknown.close()
