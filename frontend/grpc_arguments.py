"""The channel arguments of the gRPC server: ours, and the operator's of --grpc_channel_arguments. Pure."""

import re
from collections.abc import Mapping

_INTEGER = re.compile(r"\s*[-+]?[0-9]+\s*", re.ASCII)
_MAX_MESSAGE_BYTES = (1 << 31) - 1


def server_options(max_request_bytes: int, arguments: Mapping[str, str]) -> list[tuple[str, int | str]]:
    """The options of `grpc.aio.server`; an argument of the operator replaces ours of the same name, but for the
    sharing of the port, without which nobody could have it: the supervisor holds it (its `ports`).

    A value is passed as an int when it is one of 32 bits, else as text; gRPC ignores keys that it does not know, and
    logs values of the wrong type (TF Serving: model_servers/server.cc; gRPC C++: ServerBuilder::BuildChannelArgs).
    """
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": min(max_request_bytes, _MAX_MESSAGE_BYTES),
        "grpc.max_send_message_length": -1,
    }
    options.update((key, _typed(value)) for key, value in arguments.items())
    options["grpc.so_reuseport"] = 1
    return list(options.items())


def _typed(value: str) -> int | str:
    if _INTEGER.fullmatch(value) is None:
        return value
    # Python refuses to convert numbers of thousands of digits, which are far from 32 bits anyway.
    number = int(value) if len(value) < 100 else 1 << 31
    return number if -(1 << 31) <= number < 1 << 31 else value
