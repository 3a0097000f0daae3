"""The ModelSpec in a serialized request, found without parsing or copying the rest. Pure; on every gRPC request's path.

Predict, Classify, Regress, GetModelMetadata and GetModelStatus requests all carry it as field 1, MultiInference
requests as field 1 of each task, which are themselves field 1. The reader walks the top-level fields and skips each by
its length, so its time grows with their number, which is bounded, and not with the tensors' size. It takes whatever
protobuf's own parser takes, in any order; what the skipped fields hold is for the worker to judge.
"""

from dataclasses import dataclass
from functools import lru_cache

from modelpool.supervisor.wire.parts import Payload, readable
from modelpool.supervisor.wire.status import Internal, InvalidArgument

_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_GROUP_DEPTH = 100  # protobuf's own recursion limit
# Inputs, outputs asked for, and all that the ModelSpec and groups hold. The event loop is held up for about 1 us each.
_MAX_FIELDS = 4096
_MAX_VARINT_SHIFT = 63
_MAX_TAG = (1 << 32) - 1

# Tags: field number << 3 | wire type (apis/model.proto, apis/inference.proto, google/protobuf/wrappers.proto).
_MODEL_SPEC = 1 << 3 | _BYTES
_TASK = 1 << 3 | _BYTES
_NAME = 1 << 3 | _BYTES
_VERSION = 2 << 3 | _BYTES
_SIGNATURE_NAME = 3 << 3 | _BYTES
_VERSION_LABEL = 4 << 3 | _BYTES
_INT64_VALUE = 1 << 3 | _VARINT
# What `_read_usual` takes: inputs and an output filter (apis/predict.proto), an input (classification.proto).
_USUAL_TAGS = (2 << 3 | _BYTES, 3 << 3 | _BYTES)
_USUAL_FIELDS = 64

Readable = Payload | memoryview


@dataclass(slots=True)
class ModelSpec:
    """Which servable a request asks for. `version` and `label` are a oneof; both None means the latest version."""

    name: str = ""
    version: int | None = None
    label: str | None = None


# Of usual requests with one field behind the model_spec, by their size: how many bytes come before that field's value,
# and what the model_spec is that those bytes have. A request as long that begins with the same has the same fields.
_known: dict[int, tuple[int, dict[bytes, ModelSpec]]] = {}
_MOST_KNOWN = 100


class MalformedRequest(Internal):
    """Not a protobuf message: INTERNAL, as a gRPC server answers when it cannot parse a request."""


class TooManyFields(InvalidArgument):
    """A request that would keep everybody else waiting while its head is read."""


class _Walk:
    """The bytes of one request, and how many of its fields may still be visited."""

    __slots__ = ("_fields_left", "data")

    def __init__(self, data: Readable) -> None:
        self.data = data
        self._fields_left = _MAX_FIELDS

    def tag(self, pos: int, end: int) -> tuple[int, int]:
        """The tag of the field at `pos`, and the position after the tag."""
        self._fields_left -= 1
        if self._fields_left < 0:
            raise TooManyFields(
                f"Request with too many fields: expected at most {_MAX_FIELDS} at its top level and in its model_spec"
            )
        tag = self.data[pos]
        if tag < 0x80:
            return tag, pos + 1
        tag, pos = _varint(self.data, pos, end)
        if tag > _MAX_TAG:
            raise MalformedRequest(f"Malformed request: invalid field number before byte {pos}")
        return tag, pos


def read(request: Payload) -> ModelSpec | None:
    """The ModelSpec of a serialized request, not to be changed; None when it has none.

    Raises MalformedRequest and TooManyFields.
    """
    known = _known.get(len(request))
    if known is not None:
        before_value, specs = known
        spec = specs.get(request[:before_value])
        if spec is not None:
            return spec
    data = readable(request)
    spec = _read_usual(data)
    return _read(_Walk(data), 0, len(data)) if spec is None else spec


def read_first_task(request: Payload) -> ModelSpec:
    """The ModelSpec of the first task of a serialized MultiInferenceRequest; one without a name when there is none.

    What comes after the first task is not looked at. Raises MalformedRequest and TooManyFields. (TF Serving:
    servables/tensorflow/multi_inference_helper.h.)
    """
    data = readable(request)
    walk = _Walk(data)
    pos, end = 0, len(data)
    while pos < end:
        tag, pos = walk.tag(pos, end)
        if tag == _TASK:
            start, pos = _span(data, pos, end)
            return _read(walk, start, pos) or ModelSpec()
        pos = _skip(walk, pos, end, tag)
    return ModelSpec()


def _read_usual(request: Readable) -> ModelSpec | None:
    """`_read` in a third of the time for what nearly all clients send: the model_spec, then some of the usual fields.

    None for everything else, and for whatever may be wrong.
    """
    end = len(request)
    if end < 2 or request[0] != _MODEL_SPEC or request[1] >= 0x80:
        return None
    pos = 2 + request[1]
    try:
        spec = _usual_spec(bytes(request[2:pos]))
        for fields in range(_USUAL_FIELDS):
            if pos >= end:
                return spec if pos == end else None
            if request[pos] not in _USUAL_TAGS:
                return None
            length = request[pos + 1]
            pos += 2
            if length >= 0x80:
                length, pos = _varint(request, pos - 1, end)
            if not fields and pos + length == end:
                _remember(end, bytes(request[:pos]), spec)
            pos += length
    except (IndexError, MalformedRequest):
        return None
    return None


def _remember(size_bytes: int, begin: bytes, spec: ModelSpec) -> None:
    known = _known.get(size_bytes)
    if known is not None and known[0] == len(begin) and len(known[1]) < _MOST_KNOWN:
        known[1][begin] = spec
        return
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[size_bytes] = len(begin), {begin: spec}


@lru_cache(maxsize=1024)
def _usual_spec(raw: bytes) -> ModelSpec:
    spec = ModelSpec()
    _merge_spec(spec, _Walk(raw), 0, len(raw))
    return spec


def _read(walk: _Walk, pos: int, end: int) -> ModelSpec | None:
    spec: ModelSpec | None = None
    while pos < end:
        tag, pos = walk.tag(pos, end)
        if tag == _MODEL_SPEC:
            start, pos = _span(walk.data, pos, end)
            if spec is None:
                spec = ModelSpec()
            _merge_spec(spec, walk, start, pos)
        else:
            pos = _skip(walk, pos, end, tag)
    return spec


def _merge_spec(spec: ModelSpec, walk: _Walk, pos: int, end: int) -> None:
    data = walk.data
    while pos < end:
        tag, pos = walk.tag(pos, end)
        if tag == _NAME:
            start, pos = _span(data, pos, end)
            spec.name = _text(data, start, pos)
        elif tag == _VERSION:
            start, pos = _span(data, pos, end)
            spec.version = _merge_int64(spec.version or 0, walk, start, pos)
            spec.label = None
        elif tag == _VERSION_LABEL:
            start, pos = _span(data, pos, end)
            spec.label = _text(data, start, pos)
            spec.version = None
        elif tag == _SIGNATURE_NAME:
            start, pos = _span(data, pos, end)
            _text(data, start, pos)
        else:
            pos = _skip(walk, pos, end, tag)


def _merge_int64(value: int, walk: _Walk, pos: int, end: int) -> int:
    while pos < end:
        tag, pos = walk.tag(pos, end)
        if tag == _INT64_VALUE:
            value, pos = _varint(walk.data, pos, end)
            value -= (value & 1 << 63) << 1
        else:
            pos = _skip(walk, pos, end, tag)
    return value


def _text(data: Readable, start: int, end: int) -> str:
    try:
        return str(data[start:end], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"Malformed request: invalid UTF-8 in the model_spec at byte {start}") from error


def _varint(data: Readable, pos: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit value at `pos` and the position after it."""
    value = shift = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos
        shift += 7
        if shift > _MAX_VARINT_SHIFT:
            raise MalformedRequest(f"Malformed request: number of more than ten bytes before byte {pos}")
    raise _truncated(pos)


def _span(data: Readable, pos: int, end: int) -> tuple[int, int]:
    """Start and end of the length-delimited value whose length stands at `pos`."""
    length, start = _varint(data, pos, end)
    if length > end - start:
        raise _truncated(start)
    return start, start + length


def _skip(walk: _Walk, pos: int, end: int, tag: int) -> int:
    """The position after the value of an unknown field, groups with all that is in them.

    Field number 0 is invalid; within a group protobuf's parser does not look, and neither does this one.
    """
    if tag >> 3 == 0:
        raise MalformedRequest(f"Malformed request: invalid field number before byte {pos}")
    data = walk.data
    groups: list[int] = []
    while True:
        wire_type = tag & 7
        if wire_type == _BYTES:
            _, pos = _span(data, pos, end)
        elif wire_type == _VARINT:
            _, pos = _varint(data, pos, end)
        elif wire_type == _FIXED64:
            pos += 8
        elif wire_type == _FIXED32:
            pos += 4
        elif wire_type == _START_GROUP and len(groups) < _MAX_GROUP_DEPTH:
            groups.append(tag >> 3)
        elif wire_type != _END_GROUP or not groups or groups.pop() != tag >> 3:
            raise MalformedRequest(f"Malformed request: invalid field before byte {pos}")
        if pos > end:
            raise _truncated(pos)
        if not groups:
            return pos
        if pos == end:
            raise _truncated(pos)
        tag, pos = walk.tag(pos, end)


def _truncated(pos: int) -> MalformedRequest:
    return MalformedRequest(f"Malformed request: truncated at byte {pos}")
