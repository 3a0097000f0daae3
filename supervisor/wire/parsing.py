"""The bytes of a request to the message that they are. Pure; frontends and workers answer alike what is none."""

from typing import Any

from google.protobuf.message import DecodeError

from .status import Internal


def parse(message_type: Any, payload: bytes) -> Any:
    """A message of the generated class. Raises Internal, a C++ gRPC server's code for a request it cannot parse."""
    try:
        return message_type.FromString(payload)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise Internal(f"Failed to parse {name} of {len(payload)} bytes: {error}") from error
