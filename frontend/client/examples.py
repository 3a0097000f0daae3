"""Mappings of features to a tensorflow.serving.Input of tf.Examples, for Classify, Regress and MultiInference. Pure.

A feature's type follows its values, since no signature tells it: text is a bytes_list, whole numbers and truth values
are an int64_list, and a float among the numbers makes all of them a float_list.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from . import protos
from .errors import InputError


def fill(target: Any, examples: Iterable[Any], context: Any = None) -> None:
    """Fill an Input with examples, and with what they have in common as `context`.

    Each is a mapping of features to a value or values, a tf.train.Example, or the bytes of one. Raises InputError.
    """
    if isinstance(examples, Mapping | bytes | str) or not isinstance(examples, Iterable):
        raise InputError("examples: expected a list of examples, each a mapping of features to values")
    made = [_example(each, f"examples[{position}]") for position, each in enumerate(examples)]
    if not made:
        raise InputError("examples: expected at least one")
    if context is None:
        target.example_list.examples.extend(made)
    else:
        target.example_list_with_context.context.CopyFrom(_example(context, "context"))
        target.example_list_with_context.examples.extend(made)


def _example(source: Any, where: str) -> Any:
    example = protos.Example()
    if isinstance(source, Mapping):
        for name, values in source.items():
            _fill_feature(example.features.feature[name], values, f"{where}[{name!r}]")
        return example
    if not isinstance(source, bytes) and not hasattr(source, "features"):
        raise InputError(f"{where}: expected a mapping of features to values, got {type(source).__name__}")
    try:
        example.ParseFromString(source if isinstance(source, bytes) else source.SerializeToString())
    except DecodeError as error:
        raise InputError(f"{where}: not the bytes of a tf.Example: {error}") from error
    return example


def _fill_feature(feature: Any, values: Any, where: str) -> None:
    if isinstance(values, str | bytes):
        values = [values]
    flat = values if isinstance(values, list | tuple) else np.asarray(values).ravel().tolist()
    if not flat:
        return
    if all(isinstance(each, str | bytes) for each in flat):
        feature.bytes_list.value.extend(each.encode() if isinstance(each, str) else each for each in flat)
    elif all(isinstance(each, bool | int | np.integer | np.bool_) for each in flat):
        _extend(feature.int64_list.value, [int(each) for each in flat], where)
    elif all(isinstance(each, bool | int | float | np.number | np.bool_) for each in flat):
        _extend(feature.float_list.value, [float(each) for each in flat], where)
    else:
        kinds = ", ".join(sorted({type(each).__name__ for each in flat}))
        raise InputError(f"{where}: expected texts or numbers, got {kinds}")


def _extend(field: Any, values: list[Any], where: str) -> None:
    try:
        field.extend(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
