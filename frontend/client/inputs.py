"""Values of a user's program to TensorProtos: arrays keep their dtype, Python literals take the model's. Pure.

A literal is a number, a text, or a list or tuple of such. `[1.0, 2.0]` is float64 to numpy, but most models want
float32: a literal becomes what the signature declares, as long as no value changes by more than rounding. Without a
signature it becomes what `tf.make_tensor_proto` makes of it: float32, int32 where the numbers fit, or bool.
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire.status import PoolError

from .errors import InputError
from .protos import tensors
from .results import Signature
from .signatures import dtype_name

Array = npt.NDArray[Any]

_NUMBERS = (bool, int, float, complex)
_INTEGERS = ("int", "uint", "qint", "quint")
_INT32 = np.iinfo(np.int32)
_BY_NAME: Mapping[str, tensors.DType] = {dtype_name(row.enum): row for row in tensors.DTYPES.values()}


def needs_signature(inputs: Any) -> bool:
    """Whether the signature has to be known to encode this: a bare value, or a number or empty list in Python."""
    return not isinstance(inputs, Mapping) or any(_is_ambiguous(value) for value in inputs.values())


def _is_ambiguous(value: Any) -> bool:
    if not _is_literal(value):
        return False
    leaf = _first_leaf(value)
    return not isinstance(leaf, bool | str | bytes)


def _is_literal(value: Any) -> bool:
    return isinstance(value, (list, tuple, range, str, bytes, *_NUMBERS)) and not isinstance(value, np.generic)


def _first_leaf(value: Any) -> Any:
    """The first value in nested lists; None when they are empty."""
    pending = [value]
    while pending:
        each = pending.pop()
        if not isinstance(each, list | tuple | range):
            return each
        pending.extend(reversed(each))
    return None


def named(inputs: Any, signature: Signature | None) -> Mapping[str, Any]:
    """Inputs by name; a bare value is the one input of the signature. Raises InputError when there is not one."""
    if isinstance(inputs, Mapping):
        return inputs
    if signature is None:
        raise InputError("inputs: expected a mapping by input name, since the signature's inputs are not known")
    if len(signature.inputs) != 1:
        expected = ", ".join(signature.inputs) or "none"
        raise InputError(f"inputs: expected a mapping by input name, since the signature's inputs are: {expected}")
    return {next(iter(signature.inputs)): inputs}


def encode(name: str, value: Any, signature: Signature | None) -> Any:
    """The TensorProto of one input: numbers in tensor_content. Raises InputError that names the input."""
    spec = signature.inputs.get(name) if signature else None
    declared = tensors.DTYPES.get(spec.enum) if spec else None
    try:
        if _is_literal(value):
            array, row = _literal(value, declared)
        else:
            array, row = _array(np.asarray(value), declared)
        return tensors.encode(array, row.enum, as_content=True)
    except (ValueError, TypeError, OverflowError, PoolError) as error:
        raise InputError(f"input {name!r}: {error}") from error


def _array(array: Array, declared: tensors.DType | None) -> tuple[Array, tensors.DType]:
    """An array as it is, in native byte order; texts as objects. Bytes of a quantized type are what is declared."""
    if array.dtype.kind in "OSUT":
        return array.astype(object), _BY_NAME["string"]
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if declared is not None and array.dtype in (declared.stored, declared.numpy):
        return array, declared
    row = tensors.array_dtype(array)
    if row is None:
        raise ValueError(f"an array of {array.dtype} has no TensorFlow dtype")
    return array, row


def _literal(value: Any, declared: tensors.DType | None) -> tuple[Array, tensors.DType]:
    leaf = _first_leaf(value)
    if isinstance(leaf, str | bytes):
        return np.array(value, dtype=object), _BY_NAME["string"]
    array = np.asarray(value)
    if array.dtype.kind in "SUT":
        return np.array(value, dtype=object), _BY_NAME["string"]
    if declared is None:
        return _undeclared(array, leaf)
    if array.size == 0:
        return np.empty(array.shape, declared.stored), declared
    return _converted(value, array, declared), declared


def _undeclared(array: Array, leaf: Any) -> tuple[Array, tensors.DType]:
    """What tf.make_tensor_proto makes of a literal (framework/tensor_util.py)."""
    if not isinstance(leaf, np.ndarray | np.generic):
        if array.dtype == np.float64:
            array = _rounded(array, np.dtype(np.float32))
        elif array.dtype == np.int64 and array.size and _INT32.min <= array.min() and array.max() <= _INT32.max:
            array = array.astype(np.int32)
    return _array(array, None)


def _converted(value: Any, array: Array, declared: tensors.DType) -> Array:
    """The literal in the declared dtype. Raises ValueError where a value would become another one."""
    kind, target = array.dtype.kind, declared.stored
    if declared.name.startswith(_INTEGERS):
        return _integers(value, array, declared)
    if declared.name == "bool":
        fits = kind == "b"
    elif declared.name.startswith("complex"):
        fits = kind in "iufc"
    else:
        # Floating point numbers of any size, of which ml_dtypes' own have no kind.
        fits = declared.name != "string" and kind in "iuf"
    if not fits:
        raise ValueError(f"the model wants {dtype_name(declared.enum)}, got {array.dtype}")
    return _rounded(array, target)


def _rounded(array: Array, target: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(target)
        if not np.array_equal(np.isinf(array), np.isinf(made)):
            raise ValueError(f"a number is too big for {target}")
    return made


def _integers(value: Any, array: Array, declared: tensors.DType) -> Array:
    wanted = dtype_name(declared.enum)
    if array.dtype.kind not in "iu":
        # Mixed sizes of whole numbers make floats or objects of numpy's; they are whole numbers still.
        array = np.array(value, dtype=object)
        if not all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in array.ravel()):
            raise ValueError(f"the model wants {wanted}, got {np.asarray(value).dtype}")
    limits = _limits(declared.stored)
    low, high = int(array.min()), int(array.max())
    if low < limits[0] or high > limits[1]:
        raise ValueError(f"{low if low < limits[0] else high} does not fit into {wanted}")
    return array.astype(declared.stored)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)
