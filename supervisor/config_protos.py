"""TF Serving's configuration messages that the package tensorflow-serving-api lacks, under their own names and numbers.

They are described here and added to protobuf's default pool, without protoc, so that an Any of one can be read from
text. From `monitoring_config.proto` and `ssl_config.proto` in `config/`, and `session_bundle_config.proto` and
`saved_model_bundle_source_adapter.proto` in `servables/tensorflow/`. Importing is all that is done with this module.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

from .wire import batching_params, protos  # lets TensorFlow's own messages be imported without TensorFlow

_PACKAGE = "tensorflow.serving"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "string": _Field.TYPE_STRING,
}

# Each file: what it imports, and its messages: field name to (type, number); "[]" after a type: repeated. A type with a
# dot is a message, "." alone before its name one of the same package.
_Messages = Mapping[str, Mapping[str, tuple[str, int]]]
_FILES: tuple[tuple[str, tuple[str, ...], _Messages], ...] = (
    (
        "tensorflow_serving/config/monitoring_config.proto",
        (),
        {
            "PrometheusConfig": {"enable": ("bool", 1), "path": ("string", 2)},
            "MonitoringConfig": {"prometheus_config": (".PrometheusConfig", 1)},
        },
    ),
    (
        "tensorflow_serving/config/ssl_config.proto",
        (),
        {
            "SSLConfig": {
                "server_key": ("string", 1),
                "server_cert": ("string", 2),
                "custom_ca": ("string", 3),
                "client_verify": ("bool", 4),
            }
        },
    ),
    (
        "tensorflow_serving/servables/tensorflow/session_bundle_config.proto",
        (
            "google/protobuf/wrappers.proto",
            "tensorflow/core/protobuf/config.proto",
            "tensorflow/core/protobuf/named_tensor.proto",
            batching_params.PROTO,
        ),
        {
            "ModelWarmupOptions": {"num_request_iterations": ("google.protobuf.Int32Value", 1)},
            "SessionBundleConfig": {
                "session_target": ("string", 1),
                "session_config": ("tensorflow.ConfigProto", 2),
                "batching_parameters": (".BatchingParameters", 3),
                "session_run_load_threadpool_index": ("google.protobuf.Int32Value", 4),
                "experimental_transient_ram_bytes_during_load": ("uint64", 5),
                "saved_model_tags": ("string[]", 6),
                "experimental_fixed_input_tensors": ("tensorflow.NamedTensorProto[]", 778),
                "enable_model_warmup": ("bool", 779),
                "model_warmup_options": (".ModelWarmupOptions", 780),
                "enable_session_metadata": ("bool", 781),
                "remove_unused_fields_from_bundle_metagraph": ("bool", 782),
                "prefer_tflite_model": ("bool", 783),
                "resource_estimation_uses_validation_result": ("bool", 784),
                "num_tflite_interpreters": ("int32", 785),
                "num_tflite_interpreters_per_pool": ("int32", 786),
                "num_tflite_pools": ("int32", 787),
            },
        },
    ),
    (
        "tensorflow_serving/servables/tensorflow/saved_model_bundle_source_adapter.proto",
        ("tensorflow_serving/servables/tensorflow/session_bundle_config.proto",),
        {"SavedModelBundleSourceAdapterConfig": {"legacy_config": (".SessionBundleConfig", 1000)}},
    ),
)


def _described(name: str, imports: tuple[str, ...], messages: _Messages) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=_PACKAGE, syntax="proto3", dependency=imports)
    for message, its_fields in messages.items():
        described = file.message_type.add(name=message)
        for field, (kind, number) in its_fields.items():
            label = _Field.LABEL_REPEATED if kind.endswith("[]") else _Field.LABEL_OPTIONAL
            described.field.append(_field(field, kind.removesuffix("[]"), number, label))
    return file


def _field(name: str, kind: str, number: int, label: Any) -> descriptor_pb2.FieldDescriptorProto:
    if kind in _SCALARS:
        return _Field(name=name, number=number, label=label, type=_SCALARS[kind])
    full_name = f".{_PACKAGE}{kind}" if kind.startswith(".") else f".{kind}"
    return _Field(name=name, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=full_name)


def _add_files() -> None:
    """Add what is missing; a release of tensorflow-serving-api that brings a file along is taken as it is."""
    pool = descriptor_pool.Default()
    for name, imports, messages in _FILES:
        try:
            importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        except ModuleNotFoundError:
            pool.AddSerializedFile(_described(name, imports, messages).SerializeToString())


def _message(full_name: str) -> Any:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))


# By name, not by an import statement, since the supervisor must not import TensorFlow, and this is not TensorFlow.
_CONFIG = importlib.import_module("tensorflow.core.protobuf.config_pb2")
_NAMED_TENSOR = importlib.import_module("tensorflow.core.protobuf.named_tensor_pb2")
_WRAPPERS = (wrappers_pb2.DESCRIPTOR, protos.ModelServerConfig.DESCRIPTOR)
_add_files()

ConfigProto: Any = _CONFIG.ConfigProto
PlatformConfigMap: Any = importlib.import_module("tensorflow_serving.config.platform_config_pb2").PlatformConfigMap
MonitoringConfig = _message("tensorflow.serving.MonitoringConfig")
SSLConfig = _message("tensorflow.serving.SSLConfig")
BatchingParameters: Any = batching_params.BatchingParameters
SessionBundleConfig = _message("tensorflow.serving.SessionBundleConfig")
SavedModelBundleSourceAdapterConfig = _message("tensorflow.serving.SavedModelBundleSourceAdapterConfig")
REWRITER_ON: int = importlib.import_module("tensorflow.core.protobuf.rewriter_config_pb2").RewriterConfig.ON
