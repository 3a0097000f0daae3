"""A frontend's link with shared memory, to a worker whose queue is full."""

from collections.abc import Callable
from pathlib import Path

from modelpool.frontend.shared_payloads import OnMessage, SharedLink, SharedMemory
from modelpool.supervisor.arenas import Arenas
from modelpool.supervisor.wire import arena, data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code


class Full:
    """A socket that takes nothing until it has room."""

    def __init__(self) -> None:
        self.room = False
        self.sent: list[data.RequestHeader] = []

    def send(self, *frames: bytes) -> bool:
        if self.room:
            self.sent.append(data.unpack_request(frames[0]))
        return self.room

    def finish(self, on_finished: Callable[[], None]) -> None:
        raise AssertionError

    def close(self) -> None:
        """Nothing is open."""


def test_a_worker_whose_queue_was_full_gets_its_block_back_without_another_answer(tmp_path: Path) -> None:
    memory, full = SharedMemory(tmp_path, Incarnation(1)), Full()
    receive: list[OnMessage] = []

    def connect(on_message: OnMessage) -> Full:
        receive.append(on_message)
        return full

    link = SharedLink(memory, Incarnation(2), connect, lambda frames: None)
    receive[0]([data.pack_reply(7, Code.OK), b"", b"its reference"])
    memory.trim()
    assert full.sent == []
    full.room = True
    memory.trim()
    memory.trim()
    assert [(header.method, header.request_id) for header in full.sent] == [(Method.RETURN, 7)]
    link.close()
    assert not memory.links


def test_what_was_lent_is_free_again_where_it_could_not_be_sent(tmp_path: Path) -> None:
    arenas = Arenas(tmp_path, 1 << 20, 1 << 30)
    arenas.make(Peer.FRONTEND, Incarnation(1))
    memory = SharedMemory(tmp_path, Incarnation(1))
    link = SharedLink(memory, Incarnation(2), lambda _: Full(), lambda frames: None)
    payload = bytes(arena.REQUEST_BYTES)
    for number in range(3 * (1 << 20) // len(payload)):
        assert not link.send(data.pack_request(number, 0, 1, Method.PREDICT), payload)
    assert memory.lend(Incarnation(2), 100, payload) is not None
    link.close()
    arenas.close()
