"""TF Serving's BatchingParameters: the message, and its text as the `Batching` of this pool, checked. Pure.

For the supervisor, which reads the file that a flag names, and for the workers, which read that of their version. The
errors are those of servables/tensorflow/bundle_factory_util.cc and [TensorFlow] batching_util/shared_batch_scheduler.h.
"""

import importlib
from dataclasses import replace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from .status import InvalidArgument
from .worker_spec import Batching

FILE = "batching_params.pbtxt"
"""In the folder of a version."""

PROTO = "modelpool/batching_parameters.proto"
_NAME = "tensorflow.serving.BatchingParameters"
_Field = descriptor_pb2.FieldDescriptorProto
_WRAPPED = {
    "max_batch_size": ("Int64Value", 1),
    "batch_timeout_micros": ("Int64Value", 2),
    "max_enqueued_batches": ("Int64Value", 3),
    "num_batch_threads": ("Int64Value", 4),
    "thread_pool_name": ("StringValue", 5),
    "enable_large_batch_splitting": ("BoolValue", 8),
    "max_execution_batch_size": ("Int64Value", 9),
}


def _message() -> Any:
    """The message's class: of tensorflow-serving-api, should it bring it along, or described here."""
    pool = descriptor_pool.Default()
    try:
        importlib.import_module("tensorflow_serving.servables.tensorflow.session_bundle_config_pb2")
    except ModuleNotFoundError:
        file = descriptor_pb2.FileDescriptorProto(
            name=PROTO, package="tensorflow.serving", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
        )
        described = file.message_type.add(name="BatchingParameters")
        one, many = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
        for name, (kind, number) in _WRAPPED.items():
            described.field.add(
                name=name, number=number, label=one, type=_Field.TYPE_MESSAGE, type_name=f".google.protobuf.{kind}"
            )
        described.field.add(name="allowed_batch_sizes", number=6, label=many, type=_Field.TYPE_INT64)
        described.field.add(name="pad_variable_length_inputs", number=7, label=one, type=_Field.TYPE_BOOL)
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(_NAME))


BatchingParameters = _message()


def batching(message: Any) -> Batching:
    """A message's values, checked. Raises InvalidArgument."""
    given = {name: getattr(message, name).value for name in _WRAPPED if message.HasField(name)}
    settings = replace(
        Batching(),
        **given,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )
    _check(settings, given)
    return settings


def of_version(text: str, path: str, pool: Batching) -> Batching:
    """What the file of a version says; its threads are those of `pool`, as in TF Serving. Raises InvalidArgument."""
    message = BatchingParameters()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise InvalidArgument(f"Invalid protobuf file: '{path}'. {error}") from error
    return replace(batching(message), num_batch_threads=pool.num_batch_threads, thread_pool_name=pool.thread_pool_name)


def _check(settings: Batching, given: dict[str, Any]) -> None:
    for name, least in (("num_batch_threads", 1), ("max_batch_size", 1), ("max_execution_batch_size", 1)):
        if name in given and given[name] < least:
            raise InvalidArgument(f"{name} must be positive; was {given[name]}")
    for name in ("batch_timeout_micros", "max_enqueued_batches"):
        if getattr(settings, name) < 0:
            raise InvalidArgument(f"{name} must be non-negative; was {getattr(settings, name)}")
    if settings.enable_large_batch_splitting and not settings.max_enqueued_batches:
        raise InvalidArgument("max_enqueued_batches must be positive; was 0")
    limit = settings.max_execution_batch_size or settings.max_batch_size
    if settings.enable_large_batch_splitting and limit > settings.max_batch_size:
        raise InvalidArgument(
            "max_execution_batch_size must be less than or equal to max_batch_size when large batch splitting is "
            f"enabled; was {limit}, expected at most {settings.max_batch_size}"
        )
    sizes = settings.allowed_batch_sizes
    if not sizes:
        return
    if any(second <= first for first, second in zip((0, *sizes), sizes, strict=False)):
        raise InvalidArgument("allowed_batch_sizes entries must be monotonically increasing")
    if settings.enable_large_batch_splitting:
        if sizes[-1] != limit:
            raise InvalidArgument(
                "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was "
                f"{sizes[-1]}; expected {limit}"
            )
    elif sizes[-1] != settings.max_batch_size:
        raise InvalidArgument(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{sizes[-1]}; expected {settings.max_batch_size}"
        )
