"""Signature definitions in the metadata of TensorFlow Lite models: read, absent, and not to be read."""

import flatbuffers
import pytest
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema

from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker import tflite_signatures


def model(name: str, content: bytes) -> bytes:
    """A model that is nothing but one metadata buffer."""
    made, buffer, metadata = schema.ModelT(), schema.BufferT(), schema.MetadataT()
    buffer.data = list(content)
    metadata.name, metadata.buffer = name, 1
    made.version, made.buffers, made.metadata = 3, [schema.BufferT(), buffer], [metadata]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def map_of(**strings: str) -> bytes:
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in strings.items():
            builder.Key(key)
            builder.String(value)
    return bytes(builder.Finish())


def serialized(alias: str) -> str:
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    definition.inputs[alias].name = f"{alias}:0"
    text: str = definition.SerializeToString().decode("ascii")
    return text


def test_each_key_has_its_definition() -> None:
    found = tflite_signatures.read(model("signature_defs_metadata", map_of(b=serialized("y"), a=serialized("x"))))
    assert {key: list(definition.inputs) for key, definition in found.items()} == {"a": ["x"], "b": ["y"]}


def test_other_metadata_is_passed_over() -> None:
    assert tflite_signatures.read(model("min_runtime_version", b"1.14.0")) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"not a map", flexbuffers.Dumps([1, 2]), map_of(a="\x0a\x7f"), flexbuffers.Dumps({"a": 1})],
    ids=["empty", "zero", "text", "list", "no definition", "no string"],
)
def test_what_cannot_be_read_is_said(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^Invalid SignatureDefs found in TfLite model: "):
        tflite_signatures.read(model("signature_defs_metadata", content))
