"""GetModelMetadata: the signatures of the loaded model, as a proto and as TensorFlow Serving's JSON.

They never change while the worker lives, so each form is made once. Pure; main thread of the worker. TF Serving:
servables/tensorflow/get_model_metadata_impl.cc, http_rest_api_handler.cc ProcessModelMetadataRequest.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.status import InvalidArgument

from . import reply_bytes
from .model_spec import Identity

SIGNATURE_DEF = "signature_def"

# What protobuf's C++ JSON writer escapes beyond what JSON demands (json/internal/writer.cc): first and last of each.
_ESCAPED = (
    *(("<", "<"), (">", ">"), ("\x7f", "\x9f"), ("\u00ad", "\u00ad"), ("\u0600", "\u0603"), ("\u06dd", "\u06dd")),
    *(("\u070f", "\u070f"), ("\u17b4", "\u17b5"), ("\u200b", "\u200f"), ("\u2028", "\u202e"), ("\u2060", "\u2064")),
    *(("\u206a", "\u206f"), ("\ufeff", "\ufeff"), ("\ufff9", "\ufffb")),
)
_ESCAPES = {code: f"\\u{code:04x}" for first, last in _ESCAPED for code in range(ord(first), ord(last) + 1)}


class Metadata:
    """GetModelMetadata of one loaded model; `signatures` is SignatureDef by key, the init op's among them."""

    def __init__(self, signatures: Mapping[str, Any], identity: Identity) -> None:
        self._map = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in signatures.items():
            self._map.signature_def[key].CopyFrom(signature)
        self._identity = identity

    def grpc(self, payload: bytes) -> bytes:
        """A serialized GetModelMetadataRequest to a serialized GetModelMetadataResponse. Raises PoolError."""
        asked = parse(get_model_metadata_pb2.GetModelMetadataRequest, payload)
        if not asked.metadata_field:
            raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in asked.metadata_field:
            if field != SIGNATURE_DEF:
                raise InvalidArgument(f"Metadata field {field} is not supported")
        return self._serialized

    def rest(self, _payload: bytes) -> bytes:
        """The JSON of the model's metadata. The request has nothing in it to read."""
        return self._json

    @cached_property
    def _response(self) -> Any:
        """Unlike the replies of inference calls it names no signature."""
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._identity.fill(response.model_spec, "")
        response.metadata[SIGNATURE_DEF].Pack(self._map)
        return response

    @cached_property
    def _serialized(self) -> bytes:
        return reply_bytes.serialize(self._response)

    @cached_property
    def _json(self) -> bytes:
        """Two protos by protobuf's JSON printer, put together by hand: the Any itself is not printed."""
        spec, signatures = _printed(self._response.model_spec), _printed(self._map)
        text = f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {signatures}}}\n}}\n'
        return text.encode()


def _printed(message: Any) -> str:
    """MessageToJsonString with whitespace, the proto's field names, and fields that have their default value."""
    tree = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    text = json.dumps(_ordered(message.DESCRIPTOR, tree), indent=1, ensure_ascii=False)
    return f"{text.translate(_ESCAPES)}\n"


def _ordered(descriptor: Any, tree: Any) -> Any:
    """The tree of a message with its fields in TF Serving's order: by number, those of a oneof last; maps by key."""
    if not isinstance(tree, dict):
        return tree  # a message that JSON has a short form for, as the Int64Value of a version is
    fields = sorted(descriptor.fields, key=lambda field: (field.containing_oneof is not None, field.number))
    return {field.name: _ordered_field(field, tree[field.name]) for field in fields if field.name in tree}


def _ordered_field(field: Any, value: Any) -> Any:
    kind = field.message_type
    if kind is None:
        return value
    if kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {key: _ordered_field(entry, value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_ordered(kind, item) for item in value]
    return _ordered(kind, value)
