"""The signature definitions in a TensorFlow Lite model's metadata, which TF Serving reads. Pure; needs TensorFlow.

Older than the signatures that converters write today: a metadata buffer with a FlexBuffer map from keys to serialized
SignatureDefs (tensorflow/lite/tools/signature/signature_def_util.cc).
"""

import struct
from collections.abc import Iterator
from typing import Any

from flatbuffers import flexbuffers  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated

from modelpool.supervisor.wire.status import InvalidArgument

METADATA = b"signature_defs_metadata"


def read(content: bytes) -> dict[str, Any]:
    """SignatureDef by key, none if the model has no such metadata; `content` is a model that has been loaded.

    Raises InvalidArgument for metadata that cannot be read.
    """
    model = schema_py_generated.Model.GetRootAsModel(content, 0)
    for number in range(model.MetadataLength()):
        metadata = model.Metadata(number)
        if metadata.Name() == METADATA:
            buffer = model.Buffers(metadata.Buffer())
            return _definitions(b"" if buffer.DataIsNone() else buffer.DataAsNumpy().tobytes())
    return {}


def own(content: bytes) -> Iterator[tuple[str, dict[str, int], dict[str, int]]]:
    """The signatures that converters write today: key, and the index of each input and output by alias."""
    model = schema_py_generated.ModelT.InitFromObj(schema_py_generated.Model.GetRootAsModel(content, 0))
    for signature in model.signatureDefs or ():
        inputs, outputs = (
            {each.name.decode(): int(each.tensorIndex) for each in side or ()}
            for side in (signature.inputs, signature.outputs)
        )
        yield (signature.signatureKey or b"").decode(), inputs, outputs


def _definitions(raw: bytes) -> dict[str, Any]:
    try:
        root = flexbuffers.GetRoot(raw).AsMap
        return {
            key.AsKey: meta_graph_pb2.SignatureDef.FromString(bytes(value.AsStringBytes))
            for key, value in zip(root.Keys, root.Values, strict=True)
        }
    except (DecodeError, ValueError, TypeError, IndexError, struct.error) as error:
        raise InvalidArgument(f"Invalid SignatureDefs found in TfLite model: {error}") from error
