"""The messages of tensorflow.ProfilerService that are needed here, which the `tensorflow` package has in C++ only.

Names and numbers are those of tsl/profiler/protobuf/profiler_service.proto and profiler_options.proto; what is not
listed is an unknown field to protobuf, and ignored. They live in a pool of their own.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_BOOL, _STRING, _UINT64, _MESSAGE = _Field.TYPE_BOOL, _Field.TYPE_STRING, _Field.TYPE_UINT64, _Field.TYPE_MESSAGE
_PACKAGE = "tensorflow"

# Message: field: number, type, name of the message type.
_MESSAGES: dict[str, dict[str, tuple[int, int, str]]] = {
    "ProfileOptions": {"duration_ms": (9, _UINT64, "")},
    "ProfileRequest": {
        "duration_ms": (1, _UINT64, ""),
        "opts": (4, _MESSAGE, "ProfileOptions"),
        "repository_root": (5, _STRING, ""),
        "session_id": (6, _STRING, ""),
        "host_name": (7, _STRING, ""),
        "emit_xspace": (9, _BOOL, ""),
    },
    "ProfileResponse": {"empty_trace": (7, _BOOL, "")},
    "TerminateRequest": {"session_id": (1, _STRING, "")},
    "TerminateResponse": {},
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="profiler_service.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, message_type) in fields.items():
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=_Field.LABEL_OPTIONAL,
                type_name=f".{_PACKAGE}.{message_type}" if message_type else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _build()

ProfileRequest: Any = _CLASSES["ProfileRequest"]
ProfileResponse: Any = _CLASSES["ProfileResponse"]
TerminateRequest: Any = _CLASSES["TerminateRequest"]
TerminateResponse: Any = _CLASSES["TerminateResponse"]
