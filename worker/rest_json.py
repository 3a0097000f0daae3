"""The body of a REST predict call: JSON to the tensors of a signature; and back, by `json_reply`.

Owns TensorFlow Serving's two layouts (row `instances`, columnar `inputs`) and their error texts; after json_tensor.cc
FillPredictRequestFromJson. Which value fits which dtype is for `json_values` to say. It takes the signature as names
and dtypes and knows nothing of models, sessions or HTTP. Pure; any thread.

Big lists of numbers become arrays before the rest is parsed (`json_numbers`). When that leads to an error, the body is
read once more without it: errors show values and offsets as they came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire.status import InvalidArgument, PoolError

from . import json_body, json_numbers, json_text, json_values
from .json_reply import Layout, reply

__all__ = ["Layout", "PredictBody", "parse", "reply"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A parsed body. `signature_name` is "" where the body names none.

    `_document` may have arrays in place of big lists; `_text` then is the body, to be read again for the exact way.
    `_mixed`: its other lists may be mixed (`json_values.may_mix`).
    """

    signature_name: str
    _document: dict[str, Any]
    _mixed: bool
    _text: bytes | None = None

    def tensors(self, inputs: Mapping[str, int]) -> tuple[dict[str, Array], Layout]:
        """The tensors of `instances` or `inputs`, by input name.

        `inputs` gives the DataType of each input of the signature. Raises InvalidArgument, or Unimplemented for a
        dtype that JSON does not carry. A row of bare b64 objects fills only the first of several inputs; the count
        of inputs is for the caller to check.
        """
        try:
            return self._tensors(inputs)
        except PoolError:
            if self._text is None:
                raise
        return _parsed(self._text).tensors(inputs)

    def _tensors(self, inputs: Mapping[str, int]) -> tuple[dict[str, Array], Layout]:
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
            if not isinstance(instances, list | np.ndarray):
                raise json_body.format_error(document, "Expecting 'instances' to be an list/array")
            if len(instances) == 0:
                raise json_body.format_error(document, "No values in 'instances' array")
            return _rows(instances, inputs, self._mixed), Layout.ROW
        if "inputs" in document:
            return _columns(document["inputs"], inputs, self._mixed), Layout.COLUMNAR
        raise InvalidArgument("Missing 'inputs' or 'instances' key")


def parse(body: bytes | memoryview) -> PredictBody:
    """Parse a body as far as it goes without the signature. Raises InvalidArgument."""
    text = bytes(body)  # a copy of a big body, which is a memoryview; next to nothing beside reading it
    lifted = json_numbers.lift(text)
    if lifted is not None:
        try:
            name, document = json_body.parse(lifted.rest)
        except InvalidArgument:
            return _parsed(text)  # its offsets are of the text as it came
        if lifted.put_back(document, _KEYS):
            return PredictBody(name, document, json_values.may_mix(lifted.rest), text)
    return _parsed(text)


_KEYS = tuple(layout.value for layout in Layout)


def _parsed(text: bytes) -> PredictBody:
    """A body with nothing but JSON values in its document. Raises InvalidArgument."""
    name, document = json_body.parse(text)
    return PredictBody(name, document, json_values.may_mix(text))


# -- row layout --------------------------------------------------------------------------------------------------


def _rows(instances: list[Any] | Array, inputs: Mapping[str, int], mixed: bool) -> dict[str, Array]:
    """json_tensor.cc FillTensorMapFromInstancesList."""
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise InvalidArgument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if isinstance(instances, list) and _is_named(instances[0]):
        return _named_rows(instances, inputs, mixed)
    name, enum = next(iter(inputs.items()))
    array = json_values.regular(instances, enum, mixed)
    return {name: _bare_rows(json_values.exact(instances), enum) if array is None else array}


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


def _named_rows(instances: list[Any], inputs: Mapping[str, int], mixed: bool) -> dict[str, Array]:
    """Instances that are objects with exactly the input names."""
    arrays: dict[str, Array] = {}
    if all(isinstance(item, dict) and item.keys() == inputs.keys() for item in instances):
        for name, enum in inputs.items():
            array = json_values.regular(json_values.stacked([item[name] for item in instances]), enum, mixed)
            if array is not None:
                arrays[name] = array
    batches = {name: _Batch(enum) for name, enum in inputs.items() if name not in arrays}
    for index, item in enumerate(instances if batches else ()):
        if not _is_named(item):
            raise InvalidArgument(f"Expecting object but got list at item {index} of input list")
        _add_named(batches, index, {name: value for name, value in item.items() if name not in arrays})
    return {name: arrays[name] if name in arrays else batches[name].tensor(len(instances)) for name in inputs}


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
        shape = json_values.shape_of(json_values.exact(item))
        values = json_values.values_of(item, shape, self._enum)
        if self._shape is None:
            self._shape, self._size = shape, len(values)
        elif len(values) != self._size:
            raise InvalidArgument(f"Expecting tensor size: {self._size} but got: {len(values)}")
        elif shape != self._shape:
            raise InvalidArgument(f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}")
        self._values += values

    def tensor(self, count: int) -> Array:
        return json_values.array_of(self._values, (count, *(self._shape or ())), self._enum)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


# -- columnar layout ---------------------------------------------------------------------------------------------


def _columns(value: Any, inputs: Mapping[str, int], mixed: bool) -> dict[str, Array]:
    """json_tensor.cc FillTensorMapFromInputsMap."""
    if not _is_named(value):
        if len(inputs) > 1:
            raise InvalidArgument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        name, enum = next(iter(inputs.items()))
        return {name: _column(value, enum, mixed)}
    arrays = {}
    for name, enum in inputs.items():
        if name not in value:
            raise InvalidArgument(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _column(value[name], enum, mixed)
    return arrays


def _column(value: Any, enum: int, mixed: bool) -> Array:
    array = json_values.regular(value, enum, mixed) if isinstance(value, list | np.ndarray) else None
    if array is not None:
        return array
    shape = json_values.shape_of(json_values.exact(value))
    return json_values.array_of(json_values.values_of(value, shape, enum), shape, enum)
