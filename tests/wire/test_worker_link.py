"""The frontend's link to a worker over a real socket: what leaves together, in which order, and what finds no room."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from modelpool.frontend.turn import Turn
from modelpool.frontend.worker_link import WorkerLink
from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.data import Method

WAIT_S = 10


class Socket(zmq.Socket[bytes]):
    """A real one; while `is_full`, it says that its queue has no room."""

    is_full = False

    def getsockopt(self, option: int) -> Any:  # type: ignore[override]
        value = super().getsockopt(option)
        return value & ~int(zmq.POLLOUT) if self.is_full and option == zmq.EVENTS else value


class Context(zmq.Context[Socket]):
    """`dealer`: the DEALER, once there is one."""

    _socket_class = Socket
    dealer: Socket

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        made = super().socket(*args, **kwargs)
        if made.type == zmq.DEALER:
            self.dealer = made
        return made


class Peer:
    """The worker's ROUTER, read when a test wants to; and a way to run a link to it."""

    def __init__(self, folder: Path) -> None:
        self.context = Context()
        self.endpoint = f"ipc://{folder}/w"
        self.socket = self.context.socket(zmq.ROUTER)
        sockets.configure_router(self.socket, 1)
        self.socket.setsockopt(zmq.RCVTIMEO, WAIT_S * 1000)
        self.socket.bind(self.endpoint)
        self.received: list[list[bytes]] = []

    def read(self) -> list[int]:
        """The ids of the requests of one message."""
        _, head, payload = self.socket.recv_multipart()
        header = data.unpack_request(head)
        if header.method is not Method.SEVERAL:
            return [header.request_id]
        return [fields[0] for fields, _ in data.unpack_requests(payload)]

    def run(self, test: Callable[[WorkerLink], Awaitable[None]], hwm: int = 100) -> None:
        async def main() -> None:
            link = WorkerLink(self.context, self.endpoint, b"frontend:1", hwm, self.received.append)
            try:
                async with asyncio.timeout(WAIT_S):
                    await test(link)
            finally:
                link.close()

        asyncio.run(main())


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.socket.close(0)
    made.context.term()


def ask(link: WorkerLink, request_id: int, size_bytes: int = 0) -> bool:
    return link.send(data.pack_request(request_id, 0, 0, Method.PREDICT), bytes(size_bytes))


def test_small_ones_of_one_turn_are_one_message_and_all_keep_their_order(peer: Peer) -> None:
    async def test(link: WorkerLink) -> None:
        for number in range(70):
            assert ask(link, number)
        assert ask(link, 70, data.SMALL_BYTES + 1)
        assert ask(link, 71)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        messages: list[list[int]] = []
        while sum(map(len, messages)) < 72:
            messages.append(await asyncio.to_thread(peer.read))
        assert messages == [list(range(64)), list(range(64, 70)), [70], [71]]

    peer.run(test)


def test_they_leave_when_the_turn_is_ended(peer: Peer) -> None:
    async def test(link: WorkerLink) -> None:
        turn = Turn.of_loop()
        turn.hold()
        assert ask(link, 1)
        assert ask(link, 2)
        turn.end()
        assert peer.read() == [1, 2]  # and the loop has not turned

    peer.run(test)


def test_a_full_queue_refuses_and_takes_again_when_it_is_read(peer: Peer) -> None:
    peer.socket.unbind(peer.endpoint)  # so that nothing leaves the queue

    async def test(link: WorkerLink) -> None:
        assert ask(link, 0, 10_000)
        assert not ask(link, 1, 10_000)
        assert not ask(link, 1)
        peer.socket.bind(peer.endpoint)
        assert await asyncio.to_thread(peer.read) == [0]
        while not ask(link, 1):  # noqa: ASYNC110 - ZeroMQ's thread tells nobody
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(peer.read) == [1]

    peer.run(test, hwm=1)


def test_the_last_room_is_taken_by_a_message_that_was_big_enough(peer: Peer) -> None:
    """What would come after it is refused at once: put off, it would be tried again in each turn of the loop."""
    peer.socket.unbind(peer.endpoint)  # so that nothing leaves the queue

    async def test(link: WorkerLink) -> None:
        assert [ask(link, number) for number in range(66)] == [True] * 64 + [False] * 2
        await asyncio.sleep(0)
        peer.socket.bind(peer.endpoint)
        assert await asyncio.to_thread(peer.read) == list(range(64))
        while not ask(link, 66):  # noqa: ASYNC110 - ZeroMQ's thread tells nobody
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(peer.read) == [66]

    peer.run(test, hwm=1)


def test_what_finds_no_room_at_the_end_of_a_turn_leaves_later(peer: Peer) -> None:
    async def test(link: WorkerLink) -> None:
        assert ask(link, 1)
        send = link._send

        def refuse_once(*_: object) -> None:
            link._send = send
            raise zmq.Again

        link._send = refuse_once
        assert await asyncio.to_thread(peer.read) == [1]
        assert link._send is send

    peer.run(test)


def test_a_reply_that_comes_while_requests_are_refused(peer: Peer) -> None:
    """The question whether there is room takes the reply's edge from the descriptor; it is handed over all the same."""

    async def test(link: WorkerLink) -> None:
        assert ask(link, 1)
        peer.context.dealer.is_full = True  # from what it is sent by now
        await asyncio.sleep(0)
        name, *_ = await asyncio.to_thread(peer.socket.recv_multipart)
        for _ in range(5):  # until the link has looked after its own doings
            await asyncio.sleep(0)
        peer.socket.send_multipart([name, b"reply"])
        assert peer.context.dealer.poll(WAIT_S * 1000) == zmq.POLLIN
        assert not ask(link, 2)
        while not peer.received:  # noqa: ASYNC110 - the link's callback tells nobody
            await asyncio.sleep(0.001)
        assert peer.received == [[b"reply"]]

    peer.run(test)
