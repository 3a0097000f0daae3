"""The data plane: the messages that travel between a frontend and a worker, of one request or answer or of several.

Frontend to worker: `[request header, payload]`; worker to frontend: `[reply header, payload]`. ZeroMQ's ROUTER adds
and strips the frontend's identity. The payload is what the client sent, unparsed, or the reply's bytes; the payload
of an error is its text in UTF-8. Headers are fixed structs because they are packed once per request on the hot path.

Small messages that leave at the same time travel as one, for each costs more than what is in it: a request of
Method.SEVERAL, or a reply to NO_REQUEST, whose payload has the messages one behind the other, each after the length of
its payload. One that is alone may travel so, too.

A request of Method.CANCEL has an empty payload and no answer: nobody awaits the request of that id any more, and the
worker drops it if it has not begun to execute it.

A payload in shared memory (`arena`) travels as an empty frame with a third one behind it, its reference. The reader
gives the block back: the worker by a message of one frame, `pack_returned`, as soon as nothing of it is used any more,
also where there is no answer; the frontend by a request of Method.RETURN with the id of the answered request.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .status import Code, InvalidArgument

NO_DEADLINE_NS = 0
NO_REQUEST = (1 << 64) - 1
SMALL_BYTES = 4096
"""Payloads up to here are put together."""
MOST_TOGETHER = 64
"""So many at a time."""
_REQUEST = struct.Struct("<QqqB?")
_REPLY = struct.Struct("<QBI")
_ID = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_LENGTH_AND_REQUEST = struct.Struct("<IQqqB?")
_LENGTH_AND_REPLY = struct.Struct("<IQBI")
_METHOD_AT = struct.calcsize("<IQqq")
REQUEST_ROW = (
    ("size", "<u4"),
    ("request_id", "<u8"),
    ("deadline_ns", "<i8"),
    ("sent_ns", "<i8"),
    ("method", "u1"),
    ("alone", "?"),
)
"""What stands before a payload in a message of several requests, for who reads them as a table: names and formats as
numpy has them, without gaps."""
REQUEST_HEAD_BYTES = _LENGTH_AND_REQUEST.size
"""How long it is."""
REPLY_ROW = (("size", "<u4"), ("request_id", "<u8"), ("code", "u1"), ("retry_after_ms", "<u4"))
"""The same of several replies."""


class Method(IntEnum):
    """What the worker is asked to do; the value is part of the wire format."""

    PREDICT = 1
    REST_PREDICT = 2
    CLASSIFY = 3
    REST_CLASSIFY = 4
    REGRESS = 5
    REST_REGRESS = 6
    MULTI_INFERENCE = 7
    METADATA = 8
    REST_METADATA = 9
    SEVERAL = 253
    RETURN = 254
    CANCEL = 255


# What is in a RequestHeader, in its order.
RequestFields = tuple[int, int, int, Method, bool]
# A look-up costs a third of the enum's own.
_METHODS = {int(method): method for method in Method}
_CODES = {int(code): code for code in Code}


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """Times are on the host's CLOCK_MONOTONIC, which all processes share; a `deadline_ns` of 0 means none.

    `alone`: the request may have killed a worker before; it is executed by itself, in no batch.
    """

    request_id: int
    deadline_ns: int
    sent_ns: int
    method: Method
    alone: bool = False


def pack_request(request_id: int, deadline_ns: int, sent_ns: int, method: Method, alone: bool = False) -> bytes:
    return _REQUEST.pack(request_id, deadline_ns, sent_ns, method, alone)


pack_whole_request: Callable[[int, int, int, Method, bool], bytes] = _REQUEST.pack
"""The same, for who packs very many."""


def pack_cancel(request_id: int) -> bytes:
    return _REQUEST.pack(request_id, NO_DEADLINE_NS, 0, Method.CANCEL, False)


def pack_return(request_id: int) -> bytes:
    """The answer to this request has been copied from the worker's shared memory."""
    return _REQUEST.pack(request_id, NO_DEADLINE_NS, 0, Method.RETURN, False)


def unpack_request(frame: bytes) -> RequestHeader:
    """Raises InvalidArgument when the frame is not a request header."""
    return RequestHeader(*request_fields(frame))


def request_fields(frame: bytes) -> RequestFields:
    """What `unpack_request` makes a RequestHeader of, for who reads very many. Raises InvalidArgument."""
    try:
        request_id, deadline_ns, sent_ns, method, alone = _REQUEST.unpack(frame)
        return request_id, deadline_ns, sent_ns, _METHODS[method], alone
    except (struct.error, KeyError) as error:
        raise InvalidArgument(f"request header: expected {_REQUEST.size} bytes with a known method: {error}") from error


def request_id_of(frame: bytes) -> int:
    """Of a header that was packed here."""
    request_id: int = _ID.unpack_from(frame)[0]
    return request_id


def one_of_several(head: bytes, payload: bytes) -> bytes:
    """A request as it stands in a message of several, all of which may be put one behind the other."""
    return _LENGTH.pack(len(payload)) + head + payload


def several_requests(messages: Sequence[tuple[bytes, ...]]) -> tuple[bytes, bytes]:
    """Requests of header and payload as one message."""
    return _REQUEST.pack(NO_REQUEST, NO_DEADLINE_NS, 0, Method.SEVERAL, False), _together(messages)


def unpack_requests(raw: bytes) -> list[tuple[RequestFields, bytes]]:
    """The fields and the payloads of requests that came as one. Raises InvalidArgument."""
    found = []
    unpack, head_size = _LENGTH_AND_REQUEST.unpack_from, _LENGTH_AND_REQUEST.size
    at, end = 0, len(raw)
    try:
        while at < end:
            size, request_id, deadline_ns, sent_ns, method, alone = unpack(raw, at)
            start = at + head_size
            at = start + size
            found.append(((request_id, deadline_ns, sent_ns, _METHODS[method], alone), raw[start:at]))
        _require_whole(at, end)
    except (struct.error, KeyError) as error:
        raise InvalidArgument(f"requests: expected headers with known methods, and payloads: {error}") from error
    return found


unpack_one_of_several: Callable[[bytes, int], tuple[int, int, int, int, int, bool]] = _LENGTH_AND_REQUEST.unpack_from
"""The size of the payload and the fields of the request that stands there in a message of several, for who takes them
one after the other."""
pack_one_of_several_replies: Callable[[int, int, int, int], bytes] = _LENGTH_AND_REPLY.pack
"""What stands before a reply in a message of several: the size of the payload, and what `pack_reply` takes."""


def count_predicts(raw: bytes) -> int:
    """How many requests a message of several has, where all of them are of Predict; 0 for any other message."""
    count, at, end, predict = 0, 0, len(raw), int(Method.PREDICT)
    while at < end:
        start = at + REQUEST_HEAD_BYTES
        if start > end or raw[at + _METHOD_AT] != predict:
            return 0
        at = start + int.from_bytes(raw[at : at + _LENGTH.size], "little")
        count += 1
    return count if at == end else 0


def _together(messages: Sequence[tuple[bytes, ...]]) -> bytes:
    pieces: list[bytes] = []
    pack = _LENGTH.pack
    for head, body in messages:
        pieces += (pack(len(body)), head, body)
    return b"".join(pieces)


# What `_together` made is taken apart where it is used, twice: to go through it by a generator takes twice as long.
def _require_whole(at: int, end: int) -> None:
    """Raises struct.error when the last payload is not all there."""
    if at > end:
        raise struct.error(f"{at - end} bytes missing")


@dataclass(frozen=True, slots=True)
class ReplyHeader:
    """`retry_after_ms`: when a refused request may be sent again (gRPC's retry pushback); 0: nothing is said of it."""

    request_id: int
    code: Code
    retry_after_ms: int = 0


def pack_reply(request_id: int, code: Code, retry_after_ms: int = 0) -> bytes:
    return _REPLY.pack(request_id, code, retry_after_ms)


def unpack_reply(frame: bytes) -> ReplyHeader:
    """Raises InvalidArgument when the frame is not a reply header."""
    return ReplyHeader(*reply_fields(frame))


def reply_fields(frame: bytes) -> tuple[int, Code, int]:
    """What `unpack_reply` makes a ReplyHeader of, for who reads very many. Raises InvalidArgument."""
    try:
        request_id, code, retry_after_ms = _REPLY.unpack(frame)
        return request_id, _CODES[code], retry_after_ms
    except (struct.error, KeyError) as error:
        raise InvalidArgument(f"reply header: expected {_REPLY.size} bytes with a known code: {error}") from error


def pack_returned(request_ids: Sequence[int]) -> bytes:
    """The requests whose payloads in the frontend's shared memory are not used any more."""
    return struct.pack(f"<{len(request_ids)}Q", *request_ids)


def unpack_returned(frame: bytes) -> Sequence[int]:
    """Raises InvalidArgument when the frame holds no request ids."""
    if len(frame) % _ID.size:
        raise InvalidArgument(f"returned requests: expected ids of {_ID.size} bytes, got {len(frame)} bytes")
    return [request_id for (request_id,) in _ID.iter_unpack(frame)]


SEVERAL_REPLIES = _REPLY.pack(NO_REQUEST, Code.OK, 0)
"""The header of a message of several replies."""


def one_of_several_replies(head: bytes, payload: bytes) -> bytes:
    """A reply as it stands in a message of several, all of which may be put one behind the other."""
    return _LENGTH.pack(len(payload)) + head + payload


def unpack_replies(frames: Sequence[bytes]) -> list[tuple[int, Code, int, bytes]]:
    """Request id, code, hint and payload of each reply of a message. Raises InvalidArgument when it is none."""
    if len(frames) != 2:
        raise InvalidArgument(f"reply: expected 2 frames, got {len(frames)}")
    request_id, code, retry_after_ms = reply_fields(frames[0])
    if request_id != NO_REQUEST:
        return [(request_id, code, retry_after_ms, frames[1])]
    return _replies_apart(frames[1])


def _replies_apart(raw: bytes) -> list[tuple[int, Code, int, bytes]]:
    found = []
    unpack, head_size = _LENGTH_AND_REPLY.unpack_from, _LENGTH_AND_REPLY.size
    at, end = 0, len(raw)
    try:
        while at < end:
            size, request_id, code, retry_after_ms = unpack(raw, at)
            start = at + head_size
            at = start + size
            found.append((request_id, _CODES[code], retry_after_ms, raw[start:at]))
        _require_whole(at, end)
    except (struct.error, KeyError) as error:
        raise InvalidArgument(f"replies: expected headers with known codes, and payloads: {error}") from error
    return found
