"""Messages that are packed: bounded while they are unpacked, at a cost that grows with their size and no faster.

What a client sees of them is in `test_frontend_grpc_asgi`.
"""

import asyncio
import gzip
import random
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelpool.frontend import grpc_compression
from modelpool.frontend.grpc_asgi import GrpcApp
from modelpool.frontend.grpc_calls import Call, Methods
from modelpool.frontend.grpc_compression import Packing, unpack
from modelpool.frontend.grpc_frames import packed, plain
from modelpool.frontend.intake import Intake, Place
from modelpool.frontend.request_body import FREE_BYTES, MAX_RATIO
from modelpool.supervisor.wire.parts import Payload, gathered
from modelpool.supervisor.wire.status import Code, Overloaded, ResourceExhausted

LIMIT = (1 << 31) - 1
STEP = grpc_compression._STEP_BYTES
# What packs badly, and needs more than one step.
DENSE = random.Random(0).randbytes(3 * STEP + 1)


def nothing(size_bytes: int) -> None:
    pass


def unpacked(message: Payload, limit: int = LIMIT, came: Callable[[int], None] = nothing) -> Payload:
    return asyncio.run(unpack(b"gzip", message, limit, came))


def in_pieces(message: bytes, size: int) -> Payload:
    view = memoryview(message)
    return gathered([view[start : start + size] for start in range(0, len(view), size)])


@pytest.mark.parametrize("plain_", [b"", b"x", DENSE, bytes(8 * STEP), bytes(STEP) + DENSE], ids=len)
@pytest.mark.parametrize("size", [1000, STEP, STEP + 1, 1 << 30])
def test_messages_in_pieces(plain_: bytes, size: int) -> None:
    message = in_pieces(gzip.compress(plain_, 1), size)
    kept: list[int] = []
    assert bytes(unpacked(message, len(plain_), kept.append)) == plain_
    assert sum(kept) == len(plain_)
    assert max(kept, default=0) <= STEP
    if plain_:
        with pytest.raises(ResourceExhausted, match=rf"larger than max \(\d+ vs. {len(plain_) - 1}\)"):
            unpacked(message, len(plain_) - 1)


def test_what_unpacks_to_far_more_than_its_size() -> None:
    """As much as anybody may, and one byte more; the latter is found out before much more is there."""
    kept: list[int] = []
    assert len(unpacked(gzip.compress(bytes(FREE_BYTES)), came=kept.append)) == sum(kept) == FREE_BYTES
    kept.clear()
    bomb = gzip.compress(bytes(2 * FREE_BYTES))
    with pytest.raises(ResourceExhausted, match=f"message of {len(bomb)} bytes of gzip that unpack to more than"):
        unpacked(bomb, came=kept.append)
    assert sum(kept) <= FREE_BYTES
    honest = gzip.compress(bytes(FREE_BYTES) + random.Random(0).randbytes(FREE_BYTES // MAX_RATIO * 2))
    assert len(unpacked(honest)) > FREE_BYTES


def test_whoever_counts_may_end_it() -> None:
    left = 5 * STEP

    def came(size_bytes: int) -> None:
        nonlocal left
        left -= size_bytes
        if left < 0:
            raise Overloaded("no room", 1)

    with pytest.raises(Overloaded):
        unpacked(gzip.compress(bytes(100 * STEP)), came=came)
    assert -STEP <= left < 0


def test_each_byte_is_looked_at_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    inflater_of = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._inflater = inflater_of(wbits)

        def decompress(self, part: Any, most: int) -> bytes:
            given.append(len(part))
            return self._inflater.decompress(part, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inflater, name)

    monkeypatch.setattr(grpc_compression.zlib, "decompressobj", Counting)
    dense = gzip.compress(DENSE * 20, 0)
    assert bytes(unpacked(dense)) == DENSE * 20
    assert max(given) <= STEP
    assert sum(given) < 3 * len(dense)


def turns_during(work: Callable[[], Awaitable[Any]]) -> int:
    """How often the event loop gets to others."""

    async def main() -> int:
        task = asyncio.ensure_future(work())
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        task.result()
        return turns

    return asyncio.run(main())


def test_others_get_their_turns() -> None:
    message = gzip.compress(DENSE, 0)
    assert turns_during(lambda: unpack(b"gzip", message, LIMIT, nothing)) > 3
    assert turns_during(lambda: Packing(b"gzip").pack(DENSE, b"gzip")) > 20
    encoding, frame = asyncio.run(Packing(b"gzip").pack(DENSE + bytes(STEP), b"gzip"))
    assert encoding == b"gzip"
    assert gzip.decompress(frame[5:]) == DENSE + bytes(STEP)


class Counted(Intake):
    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = 0

    def add(self, place: Place, size_bytes: int) -> None:
        super().add(place, size_bytes)
        self.most_bytes = max(self.most_bytes, place.size_bytes)


async def echo(request: bytes, call: Call) -> bytes:
    return request[:1]


def test_a_call_counts_what_its_message_unpacks_to() -> None:
    intake = Counted()
    body = packed(gzip.compress(bytes(100 * STEP)))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def main() -> None:
        app = GrpcApp(Methods({"/s/Echo": echo}), LIMIT, {}, intake)
        headers = [(b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-encoding", b"gzip")]
        await app({"type": "http", "method": "POST", "path": "/s/Echo", "headers": headers}, receive, sent.append)

    asyncio.run(main())
    assert sent[1]["body"] == plain(b"\0")
    assert sent[-1]["headers"] == [(b"grpc-status", b"%d" % Code.OK)]
    assert intake.most_bytes >= 100 * STEP
    assert intake.held_bytes == 0
