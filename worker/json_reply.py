"""The body of a REST predict reply: tensors to JSON text.

Owns the text that TensorFlow Serving writes, whitespace included (json_tensor.cc MakeJsonFromTensors with RapidJSON's
PrettyWriter). It knows nothing of requests beyond their layout, nor of models, sessions or HTTP. Pure; any thread.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy.typing as npt
from tensorflow.core.framework import types_pb2

from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.tensors import dtype_name

from . import json_decimals, json_text

Outputs = Mapping[str, tuple[int, npt.NDArray[Any]]]

# Strings of outputs whose name ends so are written as base64.
BYTES_SUFFIX = "_bytes"

_NUMBERS = (
    types_pb2.DT_BOOL,
    types_pb2.DT_FLOAT,
    types_pb2.DT_DOUBLE,
    types_pb2.DT_INT8,
    types_pb2.DT_INT16,
    types_pb2.DT_INT32,
    types_pb2.DT_INT64,
    types_pb2.DT_UINT8,
    types_pb2.DT_UINT32,
    types_pb2.DT_UINT64,
)


class Layout(Enum):
    """How a request was laid out, and therefore how its reply is: json_tensor.h JsonPredictRequestFormat."""

    ROW = "instances"
    COLUMNAR = "inputs"


def reply(outputs: Outputs, layout: Layout) -> bytes:
    """The reply's JSON: `predictions` over the batch for rows, `outputs` for columns; names in the given order.

    `outputs` maps each output to its DataType and array, strings as bytes. Raises InvalidArgument for no outputs, a
    dtype that JSON does not carry, and for rows also for scalars and unequal first dimensions.
    """
    if not outputs:
        raise InvalidArgument("Cannot convert empty tensor map to JSON")
    text = _row_text(outputs) if layout is Layout.ROW else _columnar_text(outputs)
    return json_text.raw_bytes(text)


def _row_text(outputs: Outputs) -> str:
    """json_tensor.cc MakeRowFormatJsonFromTensors: arrays on one line, except for the outer one's end."""
    count = _batch_size(outputs)
    if count == 0:
        return '{\n    "predictions": []\n}'
    if len(outputs) == 1:
        ((name, (enum, array)),) = outputs.items()
        if enum in _NUMBERS and array.size >= json_decimals.MANY:
            return '{\n    "predictions": [' + json_decimals.nested(array)[1:-1].replace(",", ", ") + "\n    ]\n}"
        items = _nested(_values(name, enum, array, 2 + array.ndim - 1), array.shape, 1, None)
        return '{\n    "predictions": [' + ", ".join(items) + "\n    ]\n}"
    columns = [
        (name, _nested(_values(name, enum, array, 3 + array.ndim - 1), array.shape, 1, None))
        for name, (enum, array) in outputs.items()
    ]
    rows = (_object(((name, items[row]) for name, items in columns), 2) for row in range(count))
    return '{\n    "predictions": [\n        ' + ",\n        ".join(rows) + "\n    ]\n}"


def _columnar_text(outputs: Outputs) -> str:
    """json_tensor.cc MakeColumnarFormatJsonFromTensors: every value on a line of its own."""
    level = 1 if len(outputs) == 1 else 2
    members = [
        (name, _nested(_values(name, enum, array, level + array.ndim), array.shape, 0, level)[0])
        for name, (enum, array) in outputs.items()
    ]
    inner = members[0][1] if len(members) == 1 else _object(members, 1)
    return '{\n    "outputs": ' + inner + "\n}"


def _batch_size(outputs: Outputs) -> int:
    size: int | None = None
    for name, (_, array) in outputs.items():
        if array.ndim == 0:
            raise InvalidArgument(f"Tensor name: {name} has no shape information ")
        if size is not None and size != array.shape[0]:
            raise InvalidArgument(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {size}"
            )
        size = int(array.shape[0])
    return size or 0


def _object(members: Iterable[tuple[str, str]], level: int) -> str:
    """An object that stands `level` deep; one member a line."""
    inner, end = "    " * (level + 1), "    " * level
    return "{\n" + ",\n".join(f"{inner}{json_text.quoted(name)}: {value}" for name, value in members) + f"\n{end}}}"


def _nested(texts: list[str], shape: tuple[int, ...], outer: int, level: int | None) -> list[str]:
    """Group the texts of single values into arrays, leaving the first `outer` dimensions flat.

    `level` is how deep the outermost array stands, for one element a line; None puts arrays on one line.
    """
    for axis in range(len(shape) - 1, outer - 1, -1):
        size = shape[axis]
        start, separator, end = "[", ", ", "]"
        if level is not None:
            inner = "\n" + "    " * (level + axis - outer + 1)
            start, separator, end = f"[{inner}", f",{inner}", f"{inner[:-4]}]"
        groups = math.prod(shape[:axis])
        if size == 0:
            texts = ["[]"] * groups
        else:
            texts = [start + separator.join(texts[at : at + size]) + end for at in range(0, groups * size, size)]
    return texts


def _values(name: str, enum: int, array: npt.NDArray[Any], level: int) -> list[str]:
    """JSON of each element, flat (json_tensor.cc AddSingleValueAndAdvance); `level` is how deep they stand."""
    if array.size == 0:
        return []
    flat = array.ravel()
    if enum in _NUMBERS:
        return json_decimals.listed(flat)
    if enum != types_pb2.DT_STRING:
        raise InvalidArgument(f"Failed to write JSON value for tensor type: {dtype_name(enum)}")
    strings: list[bytes] = flat.astype(object).tolist()
    if name.endswith(BYTES_SUFFIX):
        return [_object([("b64", f'"{base64.b64encode(value).decode()}"')], level) for value in strings]
    return [json_text.quoted(value.decode("utf-8", "surrogateescape")) for value in strings]
