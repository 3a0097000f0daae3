"""The data plane: the two frames that travel between a frontend and a worker for each request.

Frontend to worker: `[request header, payload]`; worker to frontend: `[reply header, payload]`. ZeroMQ's ROUTER adds
and strips the frontend's identity. The payload is what the client sent, unparsed, or the reply's bytes; the payload
of an error is its text in UTF-8. Headers are fixed structs because they are packed once per request on the hot path.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from .status import Code, InvalidArgument

NO_DEADLINE_NS = 0
_REQUEST = struct.Struct("<QqqB")
_REPLY = struct.Struct("<QB")


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


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """Times are on the host's CLOCK_MONOTONIC, which all processes share; a `deadline_ns` of 0 means none."""

    request_id: int
    deadline_ns: int
    sent_ns: int
    method: Method


def pack_request(request_id: int, deadline_ns: int, sent_ns: int, method: Method) -> bytes:
    return _REQUEST.pack(request_id, deadline_ns, sent_ns, method)


def unpack_request(frame: bytes) -> RequestHeader:
    """Raises InvalidArgument when the frame is not a request header."""
    try:
        request_id, deadline_ns, sent_ns, method = _REQUEST.unpack(frame)
        return RequestHeader(request_id, deadline_ns, sent_ns, Method(method))
    except (struct.error, ValueError) as error:
        raise InvalidArgument(f"request header: expected {_REQUEST.size} bytes with a known method: {error}") from error


def pack_reply(request_id: int, code: Code) -> bytes:
    return _REPLY.pack(request_id, code)


def unpack_reply(frame: bytes) -> tuple[int, Code]:
    """The request's id and the reply's code. Raises InvalidArgument when the frame is not a reply header."""
    try:
        request_id, code = _REPLY.unpack(frame)
        return request_id, Code(code)
    except (struct.error, ValueError) as error:
        raise InvalidArgument(f"reply header: expected {_REPLY.size} bytes with a known code: {error}") from error
