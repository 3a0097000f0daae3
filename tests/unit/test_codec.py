"""Control messages survive the wire; anything else is refused."""

import contextlib
from collections.abc import Sequence

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire import codec, data, sockets
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import MESSAGE_TYPES, Message
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code, InvalidArgument, truncated

# What msgpack and equality can carry: 64-bit integers, numbers, and text that is UTF-8.
st.register_type_strategy(int, st.integers(-(2**63), 2**64 - 1))
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(str, st.text(st.characters(codec="utf-8")))


@given(st.one_of([st.builds(cls) for cls in MESSAGE_TYPES.values()]))
def test_encode_then_decode_is_identity(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.binary())
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        codec.decode(raw)


def test_a_map_with_a_key_that_is_a_list_is_refused() -> None:
    with pytest.raises(codec.WireError):
        codec.decode(b"\x81\x91\x01\x01")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (["Nonsense"], "unknown type 'Nonsense'"),
        (["RoutesAck"], "RoutesAck: expected 1 fields"),
        (["RoutesAck", "x"], "RoutesAck.epoch: expected <class 'int'>, got 'x'"),
        (["RoutesAck", True], "RoutesAck.epoch: expected <class 'int'>, got True"),
        (["WorkerProgress", "flying"], "WorkerProgress.phase: 'flying' is not a valid WorkerPhase"),
        ({"a": 1}, r"expected \[type, fields...\]"),
    ],
)
def test_a_wrong_message_is_named(body: object, text: str) -> None:
    with pytest.raises(codec.WireError, match=text):
        codec.decode(msgpack.packb(body))


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.sampled_from(list(data.Method))
)
def test_request_headers(request_id: int, deadline_ns: int, sent_ns: int, method: data.Method) -> None:
    raw = data.pack_request(request_id, deadline_ns, sent_ns, method)
    assert data.unpack_request(raw) == data.RequestHeader(request_id, deadline_ns, sent_ns, method)


@given(st.integers(0, 2**64 - 1), st.sampled_from(list(Code)))
def test_reply_headers(request_id: int, code: Code) -> None:
    assert data.unpack_reply(data.pack_reply(request_id, code)) == data.ReplyHeader(request_id, code)


PAYLOADS = st.lists(st.tuples(st.integers(0, 2**64 - 2), st.binary(max_size=20)), max_size=5)


@given(PAYLOADS)
def test_several_requests_are_one_message(messages: list[tuple[int, bytes]]) -> None:
    packed = [(data.pack_request(number, 5, 6, data.Method.PREDICT, True), payload) for number, payload in messages]
    head, body = data.several_requests(packed)
    assert data.unpack_request(head).method is data.Method.SEVERAL
    expected = [((number, 5, 6, data.Method.PREDICT, True), payload) for number, payload in messages]
    assert data.unpack_requests(body) == expected


def several_replies(messages: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    return data.SEVERAL_REPLIES, b"".join(data.one_of_several_replies(*each) for each in messages)


@given(PAYLOADS)
def test_several_replies_are_one_message(messages: list[tuple[int, bytes]]) -> None:
    packed = [(data.pack_reply(number, Code.NOT_FOUND, 7), payload) for number, payload in messages]
    assert data.unpack_replies(several_replies(packed)) == [(n, Code.NOT_FOUND, 7, p) for n, p in messages]


def test_tables_have_the_places_of_the_headers() -> None:
    head = data.pack_request(2**63, -3, 4, data.Method.SEVERAL, True)
    request = np.array((5, 2**63, -3, 4, 253, True), np.dtype(list(data.REQUEST_ROW)))
    assert request.tobytes() == data.one_of_several(head, b"12345")[:-5]
    reply = np.array((3, 7, Code.NOT_FOUND, 250), np.dtype(list(data.REPLY_ROW)))
    assert reply.tobytes() == several_replies([(data.pack_reply(7, Code.NOT_FOUND, 250), b"xyz")])[1][:-3]


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_several_messages_refuse_garbage(raw: bytes, other: bytes) -> None:
    head = several_replies([])[0]
    for unpack, given_ in (
        (data.unpack_requests, raw),
        (data.unpack_replies, [head, raw]),
        (data.unpack_replies, [raw, other]),
        (data.unpack_replies, [head]),
    ):
        with contextlib.suppress(InvalidArgument):
            unpack(given_)


@given(st.binary(max_size=40))
def test_data_headers_refuse_garbage(raw: bytes) -> None:
    for unpack in (data.unpack_request, data.unpack_reply):
        try:
            unpack(raw)
        except InvalidArgument as error:
            assert "header: expected" in error.message  # noqa: PT017


@given(st.sampled_from(list(Peer)), st.integers(0, 2**63))
def test_identities(peer: Peer, number: int) -> None:
    assert sockets.parse_identity(sockets.identity(peer, Incarnation(number))) == (peer, number)


@pytest.mark.parametrize("raw", [b"", b"worker", b"worker:x", b"nobody:1", b"\xff:1"])
def test_identities_refuse_garbage(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="peer identity"):
        sockets.parse_identity(raw)


@given(st.text(max_size=2000))
def test_error_texts_are_cut_as_tf_serving_cuts_them(text: str) -> None:
    cut = truncated(text)
    assert len(cut.encode("utf-8", "replace")) <= 1024
    assert cut == text or cut.endswith("...TRUNCATED")
