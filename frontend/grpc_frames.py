"""gRPC's frames: a flag, a length of four bytes, a message; cut out of the parts of a body as they come. Event loop.

Nothing is kept beyond the limit of a message. A small one is copied once on its way out of its parts, a large one stays
in them, also where all of it has come as one.
"""

import struct
from collections.abc import Callable, Mapping

from modelpool.supervisor.wire.parts import PARTS_BYTES, Payload, gathered
from modelpool.supervisor.wire.status import Internal, ResourceExhausted

from . import grpc_arguments, grpc_compression
from .engine import Send

HEAD_BYTES = 5
_HEAD = struct.Struct(">BI")
_MAX_MESSAGE_BYTES = (1 << 31) - 1


def limit_bytes(max_request_bytes: int, arguments: Mapping[str, str]) -> int:
    """The biggest message taken: the operator's argument where there is one (-1: as big as can be)."""
    given = dict(grpc_arguments.server_options(max_request_bytes, arguments))["grpc.max_receive_message_length"]
    return given if isinstance(given, int) and given >= 0 else _MAX_MESSAGE_BYTES


def plain(message: bytes) -> bytes:
    """A frame with the message as it is."""
    return _HEAD.pack(0, len(message)) + message


def send_plain(send: Send, message: bytes) -> None:
    """Send a frame with the message as it is, as the end of a body: in two where putting it together would cost."""
    head = _HEAD.pack(0, len(message))
    if len(message) < PARTS_BYTES:
        send({"type": "http.response.body", "body": head + message})
    else:
        send({"type": "http.response.body", "body": head, "more_body": True})
        send({"type": "http.response.body", "body": message})


def packed(message: bytes) -> bytes:
    """A frame with a message that is packed already."""
    return _HEAD.pack(1, len(message)) + message


def size_of(head: bytes | memoryview, limit: int) -> int:
    """The size of the message whose frame begins with `head`. Raises ResourceExhausted when it is over the limit."""
    size: int = _HEAD.unpack_from(head)[1]
    if size > limit:
        raise ResourceExhausted(f"SERVER: Received message larger than max ({size} vs. {limit})")
    return size


def only_message(body: bytes, limit: int) -> Payload | None:
    """The message of a body that is one whole frame, unpacked and within the limit; None for any other body."""
    if len(body) < HEAD_BYTES:
        return None
    flag, size = _HEAD.unpack_from(body)
    if flag or len(body) != size + HEAD_BYTES or size > limit:
        return None
    return body[HEAD_BYTES:] if size < PARTS_BYTES else gathered((memoryview(body)[HEAD_BYTES:],))


def begins_plain(body: bytes, most_bytes: int) -> bool:
    """Whether a body begins with a part of one frame, unpacked and with at most so many bytes of message."""
    if len(body) < HEAD_BYTES:
        return True
    flag, size = _HEAD.unpack_from(body)
    return not flag and len(body) < size + HEAD_BYTES and size <= most_bytes


class Frames:
    """The messages of one direction of a call. `encoding`: how those are packed that say so.

    `came` is told of what is kept beyond the parts as they came: of each piece that is unpacked. It may raise.
    """

    def __init__(self, limit: int, encoding: bytes, came: Callable[[int], None] | None = None) -> None:
        self._limit = limit
        self._encoding = encoding
        self._came = came or _ignored
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """A part of the body, as it came. Raises ResourceExhausted as soon as a head announces too much."""
        if part:
            self._parts.append(part)
            self._size += len(part)
        if self._size >= HEAD_BYTES:
            size_of(self._head(), self._limit)

    async def next(self) -> Payload | None:
        """The next message, unpacked; None while it is not all there. Raises PoolError for what is no frame."""
        if self._size < HEAD_BYTES:
            return None
        head = self._head()
        end = size_of(head, self._limit) + HEAD_BYTES
        if self._size < end:
            return None
        flag = head[0]
        message = self._take(end)
        if flag == 0:
            return message
        if flag != 1:
            raise Internal(f"Bad frame: expected a flag of 0 or 1, got {flag}")
        return await grpc_compression.unpack(self._encoding, message, self._limit, self._came)

    def _head(self) -> bytes | memoryview:
        if len(self._parts[0]) < HEAD_BYTES:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def _take(self, end: int) -> Payload:
        """The message of the first frame, which ends at `end`; what comes after it stays."""
        rest = self._size - end
        last = self._parts[-1]
        if rest:
            # `add` looks at each part, so that only the last can reach beyond the frame or hold further ones.
            self._parts[-1] = last[: len(last) - rest]
        self._parts[0] = memoryview(self._parts[0])[HEAD_BYTES:]
        message = gathered(self._parts)
        self._parts = [last[len(last) - rest :]] if rest else []
        self._size = rest
        return message


def _ignored(size_bytes: int) -> None:
    """For messages that are so small that nobody counts them."""
