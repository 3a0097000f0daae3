"""The bytes of a request to its message, for all kinds of inference calls. Pure; main thread of the worker."""

from typing import Any

from google.protobuf.message import DecodeError

from modelpool.supervisor.wire.status import Internal


def parse(message_type: Any, payload: bytes) -> Any:
    """A message of the generated class. Raises Internal, a C++ gRPC server's code for a request it cannot parse."""
    try:
        return message_type.FromString(payload)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise Internal(f"Failed to parse {name} of {len(payload)} bytes: {error}") from error
