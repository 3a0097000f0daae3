"""The load generator's HTTP without a network: answers in pieces, flow control, what a server may say besides."""

import struct

import bench_http2
import pytest
from bench_http1 import Http1
from bench_http2 import DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Http2, ProtocolError, frame
from hypothesis import given
from hypothesis import strategies as st

END_HEADERS, END_STREAM, PADDED, ACK = 4, 1, 8, 1
WORD = struct.Struct(">I")


def connection(message: bytes = b"x") -> Http2:
    """One whose preface has been taken."""
    new = Http2("host:1", "/p", message)
    sent(new)
    return new


def sent(of: Http2) -> bytes:
    """What it has to say now."""
    said = b"".join(bytes(piece) for piece in of.out)
    of.out.clear()
    return said


def frames(raw: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload."""
    found = []
    while raw:
        word, flags, stream = struct.unpack_from(">IBI", raw)
        size = word >> 8
        found.append((word & 255, flags, stream, raw[9 : 9 + size]))
        raw = raw[9 + size :]
    return found


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def answer(stream: int, message: bytes) -> bytes:
    head, trailers = frame(HEADERS, END_HEADERS, stream, b"hh"), frame(HEADERS, END_HEADERS | END_STREAM, stream, b"t")
    return head + frame(DATA, 0, stream, message) + trailers


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(1, 30))
def test_answers_come_whole_however_they_are_cut(messages: list[bytes], size: int) -> None:
    of = connection()
    streams = [of.ask() for _ in messages]
    raw = b"".join(answer(stream, message) for stream, message in zip(streams, messages, strict=True))
    got = [each for at in range(0, len(raw), size) for each in of.receive(raw[at : at + size])]
    assert got == list(zip(streams, messages, strict=True))
    assert of.open == 0


def test_a_small_request_is_headers_and_data() -> None:
    of = connection(b"abc")
    of.ask()
    (kind, _, stream, _), (data, flags, _, body) = frames(sent(of))
    assert (kind, stream, data, flags, body) == (HEADERS, 1, DATA, END_STREAM, b"\0\0\0\0\3abc")


@given(st.integers(0, 200_000), st.lists(st.tuples(st.integers(1, 70_000), st.booleans()), max_size=20))
def test_no_more_is_sent_than_the_windows_allow(size: int, credits: list[tuple[int, bool]]) -> None:
    of = connection(bytes(size))
    stream = of.ask()
    windows = {0: 65535, stream: 65535}
    body = b""
    for credit, whole in [(0, False), *credits, (10**6, False), (10**6, True)]:
        if credit:
            where = 0 if whole else stream
            windows[where] += credit
            of.receive(frame(WINDOW_UPDATE, 0, where, WORD.pack(credit)))
        body += b"".join(payload for kind, _, _, payload in frames(sent(of)) if kind == DATA)
        assert len(body) <= min(windows.values())
        assert len(body) == min(*windows.values(), size + 5)
    assert body == bytes([0]) + WORD.pack(size) + bytes(size)


def test_a_large_body_is_referred_to_and_never_copied() -> None:
    of = connection(bytes(600_000))
    settings = setting(bench_http2.INITIAL_WINDOW_SIZE, 1 << 20) + setting(bench_http2.MAX_FRAME_SIZE, 1 << 20)
    of.receive(frame(WINDOW_UPDATE, 0, 0, WORD.pack(1 << 20)) + settings)
    sent(of)
    of.ask()
    assert [len(piece) for piece in of.out if isinstance(piece, memoryview)] == [600_005]
    assert [(kind, flags, len(payload)) for kind, flags, _, payload in frames(sent(of))][1:] == [
        (DATA, END_STREAM, 600_005)
    ]


def test_a_larger_first_window_counts_for_streams_that_wait() -> None:
    of = connection(bytes(100_000))
    of.ask()
    sent(of)
    of.receive(frame(WINDOW_UPDATE, 0, 0, WORD.pack(1_000_000)) + setting(bench_http2.INITIAL_WINDOW_SIZE, 200_000))
    assert sum(len(payload) for kind, _, _, payload in frames(sent(of)) if kind == DATA) == 100_005 - 65_535


def test_settings_and_pings_are_acknowledged() -> None:
    of = connection()
    of.receive(
        setting(bench_http2.MAX_CONCURRENT_STREAMS, 7) + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, ACK, 0)
    )
    assert frames(sent(of)) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
    assert of.max_streams == 7


def test_padding_is_no_part_of_the_answer() -> None:
    of = connection()
    of.ask()
    padded = frame(DATA, PADDED | END_STREAM, 1, b"\3abc\0\0\0")
    assert of.receive(padded) == [(1, b"abc")]


def test_a_reset_request_has_no_answer() -> None:
    of = connection()
    of.ask()
    assert of.receive(frame(RST_STREAM, 0, 1, WORD.pack(2))) == [(1, None)]
    assert of.receive(frame(RST_STREAM, 0, 1, WORD.pack(2))) == []


def test_a_failed_call_has_an_empty_answer() -> None:
    of = connection()
    of.ask()
    assert of.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"t")) == [(1, b"")]


@pytest.mark.parametrize("said", [frame(GOAWAY, 0, 0, bytes(8) + b"enough"), setting(bench_http2.HEADER_TABLE_SIZE, 0)])
def test_what_cannot_be_gone_on_with(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        connection().receive(said)


# -- HTTP/1.1 ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.integers(1, 30))
def test_rest_answers_come_whole_however_they_are_cut(body: bytes, size: int) -> None:
    of = Http1("host:1", "/p", b"body")
    for number in (1, 2):
        assert of.ask() == number
        raw = b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        got = [each for at in range(0, len(raw), size) for each in of.receive(raw[at : at + size])]
        assert got == [(number, body)]


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", b"x" * 70_000]
)
def test_rest_answers_that_cannot_be_read(raw: bytes) -> None:
    of = Http1("host:1", "/p", b"body")
    of.ask()
    with pytest.raises(ProtocolError):
        of.receive(raw)
