"""A response to its bytes, for all kinds of calls. Pure; main thread."""

from typing import Any

from google.protobuf.message import EncodeError

from modelpool.supervisor.wire.status import ResourceExhausted

# What protobuf and gRPC allow a message to be.
MAX_MESSAGE_BYTES = 2**31 - 1


def serialize(message: Any) -> bytes:
    """The bytes of a response. Raises ResourceExhausted when they are more than a message may have."""
    try:
        raw: bytes = message.SerializeToString()
    except EncodeError as error:
        raise too_large(message.DESCRIPTOR.full_name) from error
    if len(raw) > MAX_MESSAGE_BYTES:
        raise too_large(message.DESCRIPTOR.full_name)
    return raw


def too_large(name: str) -> ResourceExhausted:
    """The error for a response of this message type that no message can carry."""
    return ResourceExhausted(f"The {name} is larger than the {MAX_MESSAGE_BYTES} bytes that a message may have")
