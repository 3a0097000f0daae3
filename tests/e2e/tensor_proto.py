"""TensorProtos as a stock client sends them, made by hand: the tests' process has no TensorFlow."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import tensor_pb2, types_pb2

# dtype name (as in tf.dtypes) -> (enum, array type of one element, typed field, its values from an array)
_Values = Callable[[npt.NDArray[Any]], list[Any]]


def _plain(array: npt.NDArray[Any]) -> list[Any]:
    return array.ravel().tolist()


def _bits(array: npt.NDArray[Any]) -> list[Any]:
    return array.ravel().view(np.uint16).tolist()


def _pairs(array: npt.NDArray[Any]) -> list[Any]:
    flat = array.ravel()
    return [part for value in flat.tolist() for part in (value.real, value.imag)]


KINDS: dict[str, tuple[int, Any, str, _Values]] = {
    "float16": (types_pb2.DT_HALF, np.float16, "half_val", _bits),
    "bfloat16": (types_pb2.DT_BFLOAT16, ml_dtypes.bfloat16, "half_val", _bits),
    "float32": (types_pb2.DT_FLOAT, np.float32, "float_val", _plain),
    "float64": (types_pb2.DT_DOUBLE, np.float64, "double_val", _plain),
    "complex64": (types_pb2.DT_COMPLEX64, np.complex64, "scomplex_val", _pairs),
    "complex128": (types_pb2.DT_COMPLEX128, np.complex128, "dcomplex_val", _pairs),
    "int8": (types_pb2.DT_INT8, np.int8, "int_val", _plain),
    "int16": (types_pb2.DT_INT16, np.int16, "int_val", _plain),
    "int32": (types_pb2.DT_INT32, np.int32, "int_val", _plain),
    "int64": (types_pb2.DT_INT64, np.int64, "int64_val", _plain),
    "uint8": (types_pb2.DT_UINT8, np.uint8, "int_val", _plain),
    "uint16": (types_pb2.DT_UINT16, np.uint16, "int_val", _plain),
    "uint32": (types_pb2.DT_UINT32, np.uint32, "uint32_val", _plain),
    "uint64": (types_pb2.DT_UINT64, np.uint64, "uint64_val", _plain),
    "bool": (types_pb2.DT_BOOL, np.bool_, "bool_val", _plain),
    "string": (types_pb2.DT_STRING, np.object_, "string_val", _plain),
    "qint8": (types_pb2.DT_QINT8, np.int8, "int_val", _plain),
    "quint8": (types_pb2.DT_QUINT8, np.uint8, "int_val", _plain),
    "qint16": (types_pb2.DT_QINT16, np.int16, "int_val", _plain),
    "quint16": (types_pb2.DT_QUINT16, np.uint16, "int_val", _plain),
    "qint32": (types_pb2.DT_QINT32, np.int32, "int_val", _plain),
}


def array_of(values: Any, dtype: str) -> npt.NDArray[Any]:
    return np.asarray(values, dtype=KINDS[dtype][1])


def tensor(values: Any, dtype: str = "float32", *, content: bool = False) -> Any:
    """A TensorProto of nested lists or an array; `content`: as `tensor_content` instead of the typed field."""
    enum, _, name, values_of = KINDS[dtype]
    array = array_of(values, dtype)
    proto = tensor_pb2.TensorProto(dtype=enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if content:
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, name).extend(values_of(array))
    return proto


def values(proto: Any) -> Any:
    """Nested lists of what a TensorProto of numbers or strings holds in its typed field."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    name = next(name for enum, _, name, _ in KINDS.values() if enum == proto.dtype)
    flat = np.empty(len(getattr(proto, name)), dtype=object)
    flat[:] = list(getattr(proto, name))
    return flat.reshape(shape).tolist()
