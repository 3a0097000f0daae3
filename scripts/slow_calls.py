"""gRPC calls that send the first bytes of a message, or none, and then nothing, on one bare HTTP/2 connection."""

import socket
from types import TracebackType
from typing import Self

import bench_http2

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_BEGIN_OF_MESSAGE = b"\0\0\0"


class SlowCalls:
    """`count` calls of one connection, begun at the start of the `with` block: their headers, and three bytes of a
    message where not `headers_only`. `ended` has the streams of those that the server has put an end to. Beginning them
    raises ConnectionError when the server closes the connection, and TimeoutError when it reads nothing.
    """

    def __init__(self, port: int, count: int, timeout_s: float = 30.0, *, headers_only: bool = False) -> None:
        self._begins = _begins(count, b"" if headers_only else _BEGIN_OF_MESSAGE)
        self._socket = socket.create_connection(("localhost", port), timeout=timeout_s)
        self._unread = b""
        self.ended: set[int] = set()

    def __enter__(self) -> Self:
        self._socket.sendall(self._begins)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def wait_ended(self) -> None:
        """Until the server has ended one of them at least.

        Raises TimeoutError when none has ended in time, ConnectionError when the connection has.
        """
        while not self.ended:
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("the connection was closed before any call had ended")
            self._read(self._unread + part)

    def _read(self, data: bytes) -> None:
        while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3])):
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9])
            data = data[9 + size :]
            if kind == bench_http2.HEADERS and flags & bench_http2.END_STREAM:
                self.ended.add(stream)
        self._unread = data


def _begins(count: int, data: bytes) -> bytes:
    names = {":path": PREDICT, ":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    literals = b"".join(b"\0" + _text(name) + _text(value) for name, value in names.items())
    block = b"\x83\x86" + literals  # :method POST, :scheme http
    sent = [bench_http2.PREFACE, bench_http2.frame(bench_http2.SETTINGS, 0, 0)]
    for stream in range(1, 2 * count, 2):
        sent.append(bench_http2.frame(bench_http2.HEADERS, bench_http2.END_HEADERS, stream, block))
        if data:
            sent.append(bench_http2.frame(bench_http2.DATA, 0, stream, data))
    return b"".join(sent)


def _text(value: str) -> bytes:
    """A literal of HPACK, not packed, of less than 127 bytes."""
    return bytes([len(value)]) + value.encode()
