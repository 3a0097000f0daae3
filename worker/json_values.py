"""JSON values to tensors: which value fits which dtype, what shape a nested list has, and the error texts of both.

After json_tensor.cc GetDenseTensorShape, FillTensorProto and AddValueToTensor. It knows nothing of signatures or
layouts. Pure; any thread.

Regular numeric lists go to numpy in one call; big ones come as arrays already (`json_numbers`). Whatever is unusual,
wrong values above all, goes value by value.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from tensorflow.core.framework import types_pb2

from modelpool.supervisor.wire.status import InvalidArgument, Unimplemented
from modelpool.supervisor.wire.tensors import DTYPES, MAX_RANK, dtype_name

from . import json_body, json_text

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole-number dtype: the range TensorFlow Serving checks, which is wider than int8, int16 and uint8."""

    low: int
    high: int


_INT32 = _Whole(-(2**31), 2**31 - 1)
_WHOLE: Mapping[int, _Whole] = MappingProxyType(
    {
        types_pb2.DT_INT8: _INT32,
        types_pb2.DT_INT16: _INT32,
        types_pb2.DT_INT32: _INT32,
        types_pb2.DT_UINT8: _INT32,
        types_pb2.DT_INT64: _Whole(-(2**63), 2**63 - 1),
        types_pb2.DT_UINT32: _Whole(0, 2**32 - 1),
        types_pb2.DT_UINT64: _Whole(0, 2**64 - 1),
    }
)
_DECIMAL = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_SHORT_BYTES = 2048
_QUOTES_OF_A_KEY = 2


class _NeedsText(InvalidArgument):
    """An array stands where values are needed one by one: the body must be read without arrays."""


def exact(value: Any) -> Any:
    """Raises _NeedsText for an array."""
    if isinstance(value, np.ndarray):
        raise _NeedsText("a big list was not read value by value")
    return value


def stacked(rows: list[Any]) -> list[Any] | Array:
    """The rows of one input as one array where they are arrays. Raises _NeedsText where only some are, or differ."""
    arrays = [row for row in rows if isinstance(row, np.ndarray)]
    if not arrays:
        return rows
    if len(arrays) < len(rows) or any(row.shape != arrays[0].shape for row in arrays):
        raise _NeedsText("big lists do not make one tensor")
    return arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)


def regular(value: list[Any] | Array, enum: int, mixed: bool) -> Array | None:
    """The tensor of a regular nested list of numbers or booleans, or of a flat one of strings.

    None: take the exact way, it may be an error. `mixed`: lists of the body may be mixed (`may_mix`).

    numpy's own choice of dtype tells which JSON types are in the list, except that booleans vanish among numbers, and
    that numbers among strings are as wide as the widest of these.
    """
    if enum == types_pb2.DT_STRING and isinstance(value, list):
        return _flat_strings(value)
    if enum not in _WHOLE and enum not in _DECIMAL and enum != types_pb2.DT_BOOL:
        return None
    found = value if isinstance(value, np.ndarray) else _converted_list(value, enum, mixed)
    if found is None:
        return None
    if enum == types_pb2.DT_BOOL:
        return found if found.dtype.kind == "b" else None
    if found.size == 0 or found.dtype.kind not in "iuf":
        return None
    if enum in _DECIMAL:
        return _narrowed(found.astype(np.float64, copy=False), DTYPES[enum].numpy)
    whole = _WHOLE[enum]
    if found.dtype.kind == "f" or int(found.min()) < whole.low or int(found.max()) > whole.high:
        return None
    return found.astype(DTYPES[enum].numpy, copy=False)


def _flat_strings(value: list[Any]) -> Array | None:
    try:
        found = [
            json_text.raw_bytes(item) if isinstance(item, str) else json_body.decode_base64(item) for item in value
        ]
    except InvalidArgument:
        return None
    return array_of(found, (len(found),), types_pb2.DT_STRING)


def _converted_list(value: list[Any], enum: int, mixed: bool) -> Array | None:
    if len(shape_of(value)) > MAX_RANK or (mixed and _is_mixed(value, enum)):
        return None
    try:
        return np.array(value)
    except (ValueError, OverflowError):
        return None


def may_mix(text: bytes) -> bool:
    """Whether a list in this JSON text may have booleans or strings among numbers. A short text's strings are let pass:
    numpy makes 2 MB of them at the most, and half the square of the text's length of any.
    """
    return b"true" in text or b"false" in text or (len(text) > _SHORT_BYTES and text.count(b'"') > _QUOTES_OF_A_KEY)


def _is_mixed(value: list[Any], enum: int) -> bool:
    """Whether there may be something else than what the dtype takes: a list's text tells faster than its elements."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return b'"' in text or (enum != types_pb2.DT_BOOL and (b"true" in text or b"false" in text))


def _narrowed(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """double to float as C does: overflow becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtype, copy=False)


def shape_of(value: Any) -> tuple[int, ...]:
    """The length of the list, of its first element, and so on down (json_tensor.cc GetDenseTensorShape)."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def values_of(value: Any, shape: tuple[int, ...], enum: int) -> list[Any]:
    """All values in order, each checked against its place and the dtype (json_tensor.cc FillTensorProto)."""
    rank = len(shape)
    out: list[Any] = []
    fits = _fits(enum)
    pending: list[Iterator[Any]] = [iter((value,))]
    while pending:
        level = len(pending) - 1
        item = next(pending[-1], _END)
        if item is _END:
            pending.pop()
        elif isinstance(item, list):
            if level >= rank:
                raise InvalidArgument(f"Encountered list at unexpected level: {level} expected < {rank}")
            if len(item) != shape[level]:
                raise InvalidArgument(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {shape[level]}"
                )
            pending.append(iter(item))
        elif level != rank:
            raise InvalidArgument(
                f"JSON Value: {json_text.echo(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        else:
            out.append(item if fits(item) else _converted(item, enum))
    return out


_END = object()


def _fits(enum: int) -> Callable[[Any], bool]:
    """Whether a value is a number or boolean that the dtype takes as it is."""
    if enum in _DECIMAL:
        return lambda value: type(value) is float or type(value) is int
    if enum in _WHOLE:
        low, high = _WHOLE[enum].low, _WHOLE[enum].high
        return lambda value: type(value) is int and low <= value <= high
    if enum == types_pb2.DT_BOOL:
        return lambda value: type(value) is bool
    return lambda _: False


def _converted(value: Any, enum: int) -> bytes:
    """A string's bytes, or why the value does not fit (json_tensor.cc AddValueToTensor, TypeError)."""
    if enum == types_pb2.DT_STRING:
        if isinstance(value, str):
            return json_text.raw_bytes(value)
        if isinstance(value, dict):
            return json_body.decode_base64(value)
    elif enum not in _WHOLE and enum not in _DECIMAL and enum != types_pb2.DT_BOOL and not isinstance(value, dict):
        raise Unimplemented(f"Conversion of JSON Value: {json_text.echo(value)} to type: {dtype_name(enum)}")
    raise InvalidArgument(
        f"JSON Value: {json_text.echo(value)} Type: {json_text.type_name(value)} is not of expected type: "
        f"{dtype_name(enum)}"
    )


def array_of(values: list[Any], shape: tuple[int, ...], enum: int) -> Array:
    """The values, converted before one by one, as an array of that dtype and shape. Raises PoolError."""
    if len(shape) > MAX_RANK:
        raise InvalidArgument(f"tensor parsing error: rank {len(shape)} is more than {MAX_RANK}")
    if enum not in DTYPES:
        raise Unimplemented(f"Conversion of JSON to type: {dtype_name(enum)}")
    dtype = DTYPES[enum].numpy
    if not values:
        return np.empty(shape, dtype)
    if enum == types_pb2.DT_STRING:
        strings = np.empty(len(values), object)
        strings[:] = values
        return strings.reshape(shape)
    if enum in _DECIMAL:
        return _narrowed(np.array(values, np.float64), dtype).reshape(shape)
    if enum == types_pb2.DT_BOOL:
        return np.array(values, np.bool_).reshape(shape)
    wide = np.uint64 if enum == types_pb2.DT_UINT64 else np.int64
    return np.array(values, wide).astype(dtype).reshape(shape)
