"""gRPC over ASGI against a fake of pyvoy: frames, deadlines, compression, trailers, clients that go."""

import asyncio
import gzip
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend.grpc_asgi import GrpcApp, percent_encoded
from modelpool.frontend.grpc_frames import Frames, only_message, plain
from modelpool.frontend.grpc_timeout import timeout_ns
from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.parts import Parts
from modelpool.supervisor.wire.status import Code, ResourceExhausted
from tests.unit.grpc_asgi_world import GRPC, LIMIT, TE, Client, Handlers, Headers, answered, run


@pytest.mark.parametrize(
    "parts",
    [
        (b"\0\0\0\0\x03abc",),
        (b"\0\0", b"\0", b"\0\x03a", b"bc"),
        (b"\0\0\0\0\x03abc", b""),
        (b"", b"\0\0\0\0\x03", b"abc"),
    ],
)
def test_a_message_however_it_is_cut(parts: tuple[bytes, ...]) -> None:
    client = answered(*parts)
    assert client.sent[0]["status"] == 200
    assert client.sent[0]["trailers"] is True
    assert client.body == b"\0\0\0\0\x03abc"
    assert client.sent[-1] == {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/s/Fail", plain(b""), (Code.NOT_FOUND, "nö: 100%\n")),
        ("/s/Bug", plain(b""), (Code.INTERNAL, "Internal error of the frontend, see its log")),
        ("/s/None", plain(b""), (Code.UNIMPLEMENTED, "Method not found!")),
        ("/s/Echo", b"\0\0\0\0\x05abc", (Code.INTERNAL, "Request without a whole message")),
        ("/s/Echo", b"", (Code.INTERNAL, "Request without a whole message")),
        ("/s/Echo", b"\7\0\0\0\0", (Code.INTERNAL, "Bad frame: expected a flag of 0 or 1, got 7")),
        (
            "/s/Echo",
            b"\0\0\0\x03\xe9",
            (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (1001 vs. 1000)"),
        ),
    ],
)
@pytest.mark.parametrize("headers", [(GRPC, TE), (GRPC,)])
def test_refusals(path: str, body: bytes, status: tuple[Code, str], headers: Headers) -> None:
    client = answered(body, path=path, headers=headers)
    assert client.status == status
    assert client.body == b""
    kinds = [event["type"].removeprefix("http.response.") for event in client.sent]
    assert kinds == (["start", "body", "trailers"] if TE in headers else ["start", "body"])


def test_what_is_no_grpc() -> None:
    client = answered(b"x", path="/x", headers=((b"content-type", b"text/plain"), TE))
    assert client.sent[0]["status"] == 415


def test_deadline_and_metadata() -> None:
    headers = (GRPC, TE, (b"grpc-timeout", b"250m"), (b"key", b"v\xc3\xb6"), (b"key", b"2"))

    async def scenario(app: GrpcApp, handlers: Handlers) -> tuple[int, str | None, str | None]:
        before_ns = time.monotonic_ns()
        await Client(plain(b""), headers=headers).call(app)
        (call,) = handlers.calls
        return call.deadline_ns - before_ns, call.metadata("key"), call.metadata("other")

    remaining_ns, key, other = run(scenario)
    assert 250_000_000 <= remaining_ns < 5_000_000_000
    assert (key, other) == ("vö", None)


def test_without_a_deadline() -> None:
    async def scenario(app: GrpcApp, handlers: Handlers) -> int:
        await Client(plain(b"")).call(app)
        return handlers.calls[0].deadline_ns

    assert run(scenario) == data.NO_DEADLINE_NS


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1H", 3600 * 10**9),
        (b"2M", 120 * 10**9),
        (b"3S", 3 * 10**9),
        (b"99999999n", 99999999),
        (b"0u", 0),
        (b"100000000n", None),
        (b"S", None),
        (b"-1S", None),
        (b"1s", None),
        (b"", None),
    ],
)
def test_timeouts(text: bytes, ns: int | None) -> None:
    assert timeout_ns(text) == ns


def test_nothing_is_kept_of_a_timeout_as_long_as_clients_like() -> None:
    text = b"1" * 90_000 + b"S"
    kept = sys.getrefcount(text)
    assert timeout_ns(text) is None
    assert sys.getrefcount(text) == kept


@given(st.text())
def test_messages_survive_percent_encoding(text: str) -> None:
    encoded = percent_encoded(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode()) == text.encode("utf-8", "replace").decode()


def test_a_client_that_goes_cancels_its_call() -> None:
    async def scenario(app: GrpcApp, handlers: Handlers) -> tuple[bool, list[Any]]:
        client = Client(plain(b""))
        client.gone.set()
        await client.call(app, "/s/Wait")
        return handlers.cancelled, client.sent

    assert run(scenario) == (True, [])


def test_a_watcher_that_goes_ends_its_stream() -> None:
    async def scenario(app: GrpcApp, handlers: Handlers) -> tuple[bool, bytes]:
        client = Client(plain(b"w"))
        task = asyncio.ensure_future(client.call(app, "/s/Watch"))
        while not client.sent:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0)
        client.gone.set()
        await task
        return handlers.cancelled, client.body

    assert run(scenario) == (True, plain(b"w"))


def test_a_deadline_is_an_answer() -> None:
    headers = (GRPC, TE, (b"grpc-timeout", b"1m"))

    async def scenario(app: GrpcApp, handlers: Handlers) -> tuple[bool, tuple[Code, str]]:
        client = await Client(plain(b""), headers=headers).call(app, "/s/Wait")
        return handlers.cancelled, client.status

    assert run(scenario) == (True, (Code.DEADLINE_EXCEEDED, "Deadline exceeded"))


@pytest.mark.parametrize("parts", [(), (plain(b"w"),)], ids=["nothing has come", "a reply has left"])
def test_the_deadline_of_a_stream_ends_it(parts: tuple[bytes, ...]) -> None:
    """Also where the client, or a proxy before it, does not."""
    headers = (GRPC, TE, (b"grpc-timeout", b"20m"))

    async def scenario(app: GrpcApp, _: Handlers) -> Client:
        return await Client(*parts, headers=headers).call(app, "/s/Watch")

    client = run(scenario)
    assert client.body == b"".join(parts)
    assert client.status == (Code.DEADLINE_EXCEEDED, "Deadline exceeded")


@pytest.mark.parametrize("timeout", [(), ((b"grpc-timeout", b"1H"),)], ids=["no deadline", "a deadline"])
def test_that_a_handler_waits_in_vain_is_no_deadline(timeout: Headers) -> None:
    client = answered(plain(b"w"), path="/s/Slow", headers=(GRPC, TE, *timeout))
    assert client.status == (Code.INTERNAL, "Internal error of the frontend, see its log")


def test_streams() -> None:
    client = answered(plain(b"a") + b"\0\0", b"\0\0\1b", path="/s/Twice")
    assert client.body == plain(b"a") * 2 + plain(b"b") * 2
    assert client.status == (Code.OK, "")


def test_while_it_drains() -> None:
    async def scenario(app: GrpcApp, _: Handlers) -> tuple[Code, str]:
        app.drain()
        return (await Client(plain(b"")).call(app)).status

    assert run(scenario) == (Code.UNAVAILABLE, "The server is shutting down")


# -- compression ---------------------------------------------------------------------------------------------------


def framed(packed: bytes) -> bytes:
    return b"\1" + len(packed).to_bytes(4, "big") + packed


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_packed_requests(encoding: bytes, pack: Callable[[bytes], bytes]) -> None:
    headers = (GRPC, TE, (b"grpc-encoding", encoding))
    assert answered(framed(pack(b"x" * LIMIT)), headers=headers).body == plain(b"x" * LIMIT)
    assert answered(framed(pack(b"x" * (LIMIT + 1))), headers=headers).status[0] is Code.RESOURCE_EXHAUSTED
    for broken in (b"nothing", pack(b"abc")[:-1]):
        assert answered(framed(broken), headers=headers).status[0] is Code.INTERNAL


@pytest.mark.parametrize(("encoding", "code"), [(b"br", Code.UNIMPLEMENTED), (b"identity", Code.INTERNAL)])
def test_encodings_that_are_not_taken(encoding: bytes, code: Code) -> None:
    assert answered(framed(b"x"), headers=(GRPC, TE, (b"grpc-encoding", encoding))).status[0] is code


def test_packed_replies_for_clients_that_take_them() -> None:
    takes = (GRPC, TE, (b"grpc-accept-encoding", b"identity, gzip"))

    async def scenario(app: GrpcApp, _: Handlers) -> list[tuple[bytes | None, bytes]]:
        clients = (
            Client(plain(b"x" * LIMIT), headers=takes),
            Client(plain(b"x"), headers=takes),
            Client(plain(b"x" * LIMIT)),
        )
        for client in clients:
            await client.call(app)
        return [(dict(client.sent[0]["headers"]).get(b"grpc-encoding"), client.body) for client in clients]

    big, small, other = run(scenario, {"grpc.default_compression_algorithm": "2"})
    assert big[0] == b"gzip"
    assert gzip.decompress(big[1][5:]) == b"x" * LIMIT
    assert small == (b"gzip", plain(b"x"))
    assert other == (None, plain(b"x" * LIMIT))


# -- frames --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.integers(1, 9), max_size=40))
def test_frames_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(map(plain, messages))

    async def read() -> list[bytes]:
        frames = Frames(20, b"identity")
        found: list[bytes] = []
        rest = whole
        for cut in [*cuts, len(whole)]:
            frames.add(rest[:cut])
            rest = rest[cut:]
            while (message := await frames.next()) is not None:
                found.append(message)
        return found

    assert asyncio.run(read()) == messages


def test_a_large_message_that_came_as_one_is_not_copied() -> None:
    body = plain(bytes(range(256)) * 1000)
    message = only_message(body, 1 << 20)
    assert isinstance(message, Parts)
    assert message == body[5:]
    (piece,) = message.pieces
    assert piece.obj is body

    async def read() -> Any:
        frames = Frames(1 << 20, b"identity")
        frames.add(body)
        return await frames.next()

    (piece,) = asyncio.run(read()).pieces
    assert (piece.obj, bytes(piece)) == (body, body[5:])
    for other in (body[:-1], body + b"x", b"\1" + body[1:]):
        assert only_message(other, 1 << 20) is None
    assert only_message(body, 255_999) is None


def test_a_head_that_announces_too_much_is_refused_at_once() -> None:
    with pytest.raises(ResourceExhausted):
        Frames(20, b"identity").add(b"\0\0\0\0\x15")


def test_a_stream_that_fails_after_a_reply_ends_what_it_began() -> None:
    """Its response has begun, and may not begin again."""

    class Patient(Client):
        async def receive(self) -> Any:
            while len(self._events) == 1 and len(self.sent) < 3:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            return await super().receive()

    async def main(bad: bytes) -> Any:
        app = GrpcApp(Handlers().methods, 1 << 20, {})
        client = await Patient(plain(b"x"), bad).call(app, "/s/Twice")
        return [event["type"].removeprefix("http.response.") for event in client.sent], client.status[0]

    kinds = ["start", "body", "body", "body", "trailers"]
    assert asyncio.run(main(plain(bytes(70_000)))) == (kinds, Code.RESOURCE_EXHAUSTED)
    assert asyncio.run(main(b"\7\0\0\0\0")) == (kinds, Code.INTERNAL)


def test_what_a_stream_sends_is_small() -> None:
    async def main() -> Any:
        app = GrpcApp(Handlers().methods, 1 << 20, {})
        small, big = [await Client(plain(bytes(size))).call(app, "/s/Twice") for size in (60_000, 70_000)]
        return small.status[0], big.status

    assert asyncio.run(main()) == (
        Code.OK,
        (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (70000 vs. 65536)"),
    )


@pytest.mark.parametrize(
    "headers", [(), ((b"content-type", b"text/plain"),), ((b"content-type", b"application/json"), (b"te", b"trailers"))]
)
def test_what_is_not_grpc_is_no_call(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    async def scenario(app: GrpcApp, handlers: Handlers) -> tuple[list[Any], list[Any]]:
        return (await Client(plain(b""), headers=headers).call(app)).sent, handlers.calls

    sent, calls = run(scenario)
    assert (sent[0]["status"], sent[1]["body"], calls) == (415, b"", [])
