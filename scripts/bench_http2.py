"""One HTTP/2 connection of the load generator, without I/O: asks one gRPC method with one message, again and again.

Bytes in, finished requests out. It speaks as much of RFC 9113 as a client needs that never looks into a header: its
own header block is made once and sent by its indices afterwards, as gRPC clients do; blocks of the server are skipped.
What the answer is, is in the messages; a failed call has none. All flow control is obeyed; our own windows are as
large as they can be, so that the server never waits for the generator.
"""

import struct
from collections import deque

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
MAX_WINDOW = 2**31 - 1
# A gRPC message's own head: not compressed, so many bytes.
MESSAGE_HEAD = struct.Struct(">BI")

_HEAD = struct.Struct(">IBI")  # length and type in the first word, flags, stream
_WORD = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_DEFAULT_WINDOW = 65535
_DEFAULT_TABLE = 4096
_DEFAULT_FRAME = 16384
_LARGEST_FRAME = 1 << 20
_CREDIT_FROM = 1 << 30
# A body up to here is copied into one piece with its heads; a larger one is referred to, however large a frame may be.
_COPIED_BYTES = 1 << 16
_DYNAMIC_FROM = 62  # the newest entry of a dynamic table (RFC 7541, 2.3.3)


class ProtocolError(Exception):
    """The server said something that this connection cannot go on with."""


# The end of a request: its stream and its answer, the messages as they came, with their heads; None when it was reset.
# A plain tuple, for one is made per request.
Finished = tuple[int, bytes | None]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def header_blocks(authority: str, path: str) -> tuple[bytes, bytes]:
    """The request's headers for the first time, which puts them into the server's table, and for all times after.

    The deadline is there because clients set one, and what it costs the server belongs to a request.
    """
    static = b"\x83\x86"  # :method POST, :scheme http
    named = [(b"\x44", path), (b"\x41", authority), (b"\x5f", "application/grpc")]  # static names, to be indexed
    added = b"".join(name + _text(value) for name, value in named)
    texts = [("te", "trailers"), ("user-agent", "modelpool-bench"), ("grpc-timeout", "10S")]
    added += b"".join(b"\x40" + _text(name) + _text(value) for name, value in texts)
    count = len(named) + len(texts)
    return static + added, static + bytes(0x80 | _DYNAMIC_FROM + i for i in reversed(range(count)))


def _text(value: str) -> bytes:
    """A string literal, not Huffman coded."""
    raw = value.encode("ascii")
    length = len(raw)
    return (bytes([length]) if length < 127 else b"\x7f" + bytes([length - 127])) + raw


class Http2:
    """One connection. `out` holds what must be sent, in order; whoever sends it takes it from there."""

    def __init__(self, authority: str, path: str, message: bytes) -> None:
        self._first_block, self._block = header_blocks(authority, path)
        self._body = memoryview(MESSAGE_HEAD.pack(0, len(message)) + message)
        self._stream = -1
        self._answers: dict[int, bytes] = {}
        self._table = _DEFAULT_TABLE
        self._frame_size = _DEFAULT_FRAME
        self._stream_window = _DEFAULT_WINDOW
        self._window = _DEFAULT_WINDOW
        self._taken = 0  # bytes since the last credit that we gave for the connection
        self._rest = b""
        self._sending: dict[int, list[int]] = {}  # stream: offset into the body, window left; oldest first
        self.max_streams = MAX_WINDOW
        settings = _SETTING.pack(INITIAL_WINDOW_SIZE, MAX_WINDOW)
        credit = frame(WINDOW_UPDATE, 0, 0, _WORD.pack(MAX_WINDOW - _DEFAULT_WINDOW))
        self.out: deque[bytes | memoryview] = deque([PREFACE + frame(SETTINGS, 0, 0, settings) + credit])

    @property
    def open(self) -> int:
        """Requests without an answer."""
        return len(self._answers)

    def ask(self) -> int:
        """Begin a request; its stream. `open` must be below `max_streams`."""
        self._stream += 2
        stream = self._stream
        block = self._first_block if stream == 1 else self._block
        self._answers[stream] = b""
        size = len(self._body)
        head = _HEAD.pack(len(block) << 8 | HEADERS, END_HEADERS, stream) + block
        if not self._sending and size <= min(_COPIED_BYTES, self._frame_size, self._window, self._stream_window):
            self._window -= size
            self.out.append(head + _HEAD.pack(size << 8 | DATA, END_STREAM, stream) + self._body)
        else:
            self.out.append(head)
            self._sending[stream] = [0, self._stream_window]
            self._pump()
        return stream

    def receive(self, data: bytes) -> list[Finished]:
        """Take what came from the server. Raises ProtocolError."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        finished: list[Finished] = []
        answers = self._answers
        while end - at >= 9:
            word, flags, stream = _HEAD.unpack_from(data, at)
            kind = word & 255
            start, stop = at + 9, at + 9 + (word >> 8)
            if stop > end:
                break
            at = stop
            if kind == DATA:
                self._taken += stop - start
                if stream in answers:
                    payload = data[start:stop]
                    answers[stream] += _unpadded(payload) if flags & PADDED else payload
            elif kind != HEADERS:
                self._control(kind, flags, stream, data[start:stop], finished)
                continue
            if flags & END_STREAM and stream in answers:
                self._sending.pop(stream, None)
                finished.append((stream, answers.pop(stream)))
        self._rest = data[at:]
        if self._taken > _CREDIT_FROM:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._taken)))
            self._taken = 0
        if self._sending:
            self._pump()
        return finished

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, finished: list[Finished]) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == PING and not flags & ACK:
            self.out.append(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            (credit,) = _WORD.unpack(payload)
            if not stream:
                self._window += credit
            elif stream in self._sending:
                self._sending[stream][1] += credit
        elif kind == RST_STREAM and self._answers.pop(stream, None) is not None:
            self._sending.pop(stream, None)
            finished.append((stream, None))
        elif kind == GOAWAY:
            raise ProtocolError(f"the server closes the connection: {payload[8:].decode('ascii', 'replace')}")

    def _settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == INITIAL_WINDOW_SIZE:
                for sending in self._sending.values():
                    sending[1] += value - self._stream_window
                self._stream_window = value
            elif name == MAX_FRAME_SIZE:
                self._frame_size = min(value, _LARGEST_FRAME)
            elif name == MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == HEADER_TABLE_SIZE and value < _DEFAULT_TABLE:
                raise ProtocolError(f"a header table of {value} bytes is too small for this client")
        self.out.append(frame(SETTINGS, ACK, 0))

    def _pump(self) -> None:
        """Send of the bodies that wait, oldest first, what the windows allow."""
        size = len(self._body)
        for stream, sending in list(self._sending.items()):
            while sending[0] < size:
                at, window = sending
                room = min(self._frame_size, self._window, window, size - at)
                if room <= 0:
                    break
                last = END_STREAM if at + room == size else 0
                self.out.append(_HEAD.pack(room << 8 | DATA, last, stream))
                self.out.append(self._body[at : at + room])
                self._window -= room
                sending[0], sending[1] = at + room, window - room
            if sending[0] == size:
                del self._sending[stream]
            elif self._window <= 0:
                break


def _unpadded(payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]]
