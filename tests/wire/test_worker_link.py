"""The frontend's link to a worker over a real socket: what leaves together, in which order, and what finds no room."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import zmq

from modelpool.frontend.worker_link import WorkerLink
from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.data import Method

WAIT_S = 10


class Peer:
    """The worker's ROUTER, read when a test wants to; and a way to run a link to it."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.endpoint = f"ipc://{folder}/w"
        self.socket = self.context.socket(zmq.ROUTER)
        sockets.configure_router(self.socket, 1)
        self.socket.setsockopt(zmq.RCVTIMEO, WAIT_S * 1000)
        self.socket.bind(self.endpoint)

    def read(self) -> list[int]:
        """The ids of the requests of one message."""
        _, head, payload = self.socket.recv_multipart()
        header = data.unpack_request(head)
        if header.method is not Method.SEVERAL:
            return [header.request_id]
        return [fields[0] for fields, _ in data.unpack_requests(payload)]

    def run(self, test: Callable[[WorkerLink], Awaitable[None]], hwm: int = 100) -> None:
        async def main() -> None:
            link = WorkerLink(self.context, self.endpoint, b"frontend:1", hwm, lambda frames: None)
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


def test_a_full_queue_refuses_and_takes_again_when_it_is_read(peer: Peer) -> None:
    async def test(link: WorkerLink) -> None:
        taken = 0
        while ask(link, taken, 10_000):
            taken += 1
            await asyncio.sleep(0)
        assert not ask(link, taken)
        for number in range(taken):
            assert await asyncio.to_thread(peer.read) == [number]
        while not ask(link, taken):  # noqa: ASYNC110 - ZeroMQ's thread tells nobody
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(peer.read) == [taken]

    peer.run(test, hwm=1)
