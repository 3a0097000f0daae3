"""The body of a REST predict call: JSON to the tensors of a signature; and back, by `json_reply`.

Owns TensorFlow Serving's two layouts (row `instances`, columnar `inputs`), which JSON value fits which dtype, and the
error texts of both; after json_tensor.cc FillPredictRequestFromJson. It takes the signature as names and dtypes and
knows nothing of models, sessions or HTTP. Pure; any thread.

Regular numeric lists go to numpy in one call. Whatever is unusual, wrong values above all, goes value by value.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from tensorflow.core.framework import types_pb2

from modelpool.supervisor.wire.status import InvalidArgument, PoolError, Unimplemented
from modelpool.supervisor.wire.tensors import DTYPES, MAX_RANK, dtype_name

from . import json_body, json_text
from .json_reply import Layout, reply

__all__ = ["Layout", "PredictBody", "parse", "reply"]

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


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A parsed body. `signature_name` is "" where the body names none."""

    signature_name: str
    _document: dict[str, Any]
    _has_booleans: bool

    def tensors(self, inputs: Mapping[str, int]) -> tuple[dict[str, Array], Layout]:
        """The tensors of `instances` or `inputs`, by input name.

        `inputs` gives the DataType of each input of the signature. Raises InvalidArgument, or Unimplemented for a
        dtype that JSON does not carry. A row of bare b64 objects fills only the first of several inputs; the count
        of inputs is for the caller to check.
        """
        if not inputs:
            name = self.signature_name or "DEFAULT"
            raise InvalidArgument(f"Failed to get input map for signature: {json_text.readable(name)}")
        document = self._document
        if "instances" in document and "inputs" in document:
            raise json_body.format_error(
                document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
            )
        if "instances" in document:
            instances = document["instances"]
            if not isinstance(instances, list):
                raise json_body.format_error(document, "Expecting 'instances' to be an list/array")
            if not instances:
                raise json_body.format_error(document, "No values in 'instances' array")
            return _rows(instances, inputs, self._has_booleans), Layout.ROW
        if "inputs" in document:
            return _columns(document["inputs"], inputs, self._has_booleans), Layout.COLUMNAR
        raise InvalidArgument("Missing 'inputs' or 'instances' key")


def parse(body: bytes) -> PredictBody:
    """Parse a body as far as it goes without the signature. Raises InvalidArgument."""
    name, document = json_body.parse(body)
    return PredictBody(name, document, b"true" in body or b"false" in body)


# -- row layout --------------------------------------------------------------------------------------------------


def _rows(instances: list[Any], inputs: Mapping[str, int], has_booleans: bool) -> dict[str, Array]:
    """json_tensor.cc FillTensorMapFromInstancesList."""
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise InvalidArgument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if _is_named(instances[0]):
        return _named_rows(instances, inputs, has_booleans)
    name, enum = next(iter(inputs.items()))
    array = _regular(instances, enum, has_booleans)
    return {name: _bare_rows(instances, enum) if array is None else array}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not json_body.is_base64(value)


def _bare_rows(instances: list[Any], enum: int) -> Array:
    batch = _Batch(enum)
    for index, item in enumerate(instances):
        if _is_named(item):
            raise InvalidArgument(f"Expecting value/list but got object at item {index} of input list")
        try:
            batch.add(item)
        except PoolError as error:
            raise InvalidArgument(
                f"Failed to process element: {index} of 'instances' list. Error: {error.status}"
            ) from error
    return batch.tensor(len(instances))


def _named_rows(instances: list[Any], inputs: Mapping[str, int], has_booleans: bool) -> dict[str, Array]:
    """Instances that are objects with exactly the input names."""
    if all(isinstance(item, dict) and item.keys() == inputs.keys() for item in instances):
        arrays = {}
        for name, enum in inputs.items():
            array = _regular([item[name] for item in instances], enum, has_booleans)
            if array is None:
                break
            arrays[name] = array
        else:
            return arrays
    batches = {name: _Batch(enum) for name, enum in inputs.items()}
    for index, item in enumerate(instances):
        if not _is_named(item):
            raise InvalidArgument(f"Expecting object but got list at item {index} of input list")
        _add_named(batches, index, item)
    return {name: batch.tensor(len(instances)) for name, batch in batches.items()}


def _add_named(batches: "Mapping[str, _Batch]", index: int, item: dict[str, Any]) -> None:
    for name, value in item.items():
        try:
            if name not in batches:
                raise InvalidArgument(f"JSON object: does not have named input: {json_text.readable(name)}")
            batches[name].add(value)
        except PoolError as error:
            raise InvalidArgument(
                f"Failed to process element: {index} key: {json_text.readable(name)} of 'instances' list. "
                f"Error: {error.status}"
            ) from error
    if item.keys() != batches.keys():
        raise InvalidArgument(
            f"Failed to process element: {index} of 'instances' list. JSON object: {json_text.echo(item)} "
            f"keys must be equal to: {','.join(sorted(batches))}"
        )


class _Batch:
    """One input's tensor, grown instance by instance; all must have one shape (json_tensor.cc AddInstanceItem)."""

    def __init__(self, enum: int) -> None:
        self._enum = enum
        self._values: list[Any] = []
        self._shape: tuple[int, ...] | None = None
        self._size = 0

    def add(self, item: Any) -> None:
        shape = _shape_of(item)
        values = _values_of(item, shape, self._enum)
        if self._shape is None:
            self._shape, self._size = shape, len(values)
        elif len(values) != self._size:
            raise InvalidArgument(f"Expecting tensor size: {self._size} but got: {len(values)}")
        elif shape != self._shape:
            raise InvalidArgument(f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}")
        self._values += values

    def tensor(self, count: int) -> Array:
        return _array(self._values, (count, *(self._shape or ())), self._enum)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


# -- columnar layout ---------------------------------------------------------------------------------------------


def _columns(value: Any, inputs: Mapping[str, int], has_booleans: bool) -> dict[str, Array]:
    """json_tensor.cc FillTensorMapFromInputsMap."""
    if not _is_named(value):
        if len(inputs) > 1:
            raise InvalidArgument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        name, enum = next(iter(inputs.items()))
        return {name: _column(value, enum, has_booleans)}
    arrays = {}
    for name, enum in inputs.items():
        if name not in value:
            raise InvalidArgument(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _column(value[name], enum, has_booleans)
    return arrays


def _column(value: Any, enum: int, has_booleans: bool) -> Array:
    array = _regular(value, enum, has_booleans) if isinstance(value, list) else None
    if array is not None:
        return array
    shape = _shape_of(value)
    return _array(_values_of(value, shape, enum), shape, enum)


# -- values ------------------------------------------------------------------------------------------------------


def _regular(value: list[Any], enum: int, has_booleans: bool) -> Array | None:
    """The tensor of a regular nested list of numbers or booleans; None: take the exact way, it may be an error.

    numpy's own choice of dtype tells which JSON types are in the list, except that booleans vanish among numbers.
    """
    if enum not in _WHOLE and enum not in _DECIMAL and enum != types_pb2.DT_BOOL:
        return None
    if len(_shape_of(value)) > MAX_RANK or (has_booleans and enum != types_pb2.DT_BOOL and _hides_booleans(value)):
        return None
    try:
        found = np.array(value)
    except (ValueError, OverflowError):
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


def _hides_booleans(value: list[Any]) -> bool:
    """Whether there may be a boolean somewhere in the list: its text tells faster than its elements."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return b"true" in text or b"false" in text


def _narrowed(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """double to float as C does: overflow becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtype, copy=False)


def _shape_of(value: Any) -> tuple[int, ...]:
    """The length of the list, of its first element, and so on down (json_tensor.cc GetDenseTensorShape)."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _values_of(value: Any, shape: tuple[int, ...], enum: int) -> list[Any]:
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


def _array(values: list[Any], shape: tuple[int, ...], enum: int) -> Array:
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
