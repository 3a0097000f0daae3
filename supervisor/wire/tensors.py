"""TensorProto to numpy and back, with the semantics of TensorFlow's `Tensor::FromProto` and `AsProtoField`.

Owns the table of dtypes that a TensorProto can carry. It knows nothing of signatures, requests or JSON. Only the
generated proto modules of TensorFlow are imported, so that it works in a process where `tensorflow` itself is not
loaded. For the worker and the client: neither the supervisor nor a frontend that serves may import it, since it needs
numpy. Everything here is pure; any thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import tensor_pb2, types_pb2

from .status import Internal, InvalidArgument
from .varint import varint

# A TensorProto of a few bytes may ask for a tensor of any size by repeating its last value. No honest message
# carries more than protobuf's own limit, so neither may a repetition.
MAX_TENSOR_BYTES = 2**31 - 1
# What TensorFlow takes for each string besides a long one's bytes (platform/ctstring_internal.h: TF_TString).
_STRING_BYTES = 24

# numpy's limit; TensorFlow's own is 254 (TensorShape::MaxDimensions).
MAX_RANK = 64

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DType:
    """One row of the dtype table.

    `name` is TensorFlow's DataTypeString. `numpy` is what a session takes for it: quantized types are fed as
    one-field records. `stored` is the plain dtype of the same bytes, which is what a session returns. `field` is the
    TensorProto field that holds the values, and `wire` the dtype of that field's entries.
    """

    enum: int
    name: str
    numpy: np.dtype[Any]
    stored: np.dtype[Any]
    field: str
    wire: np.dtype[Any]


def _row(name: str, field: str, wire: npt.DTypeLike, stored: npt.DTypeLike) -> DType:
    plain = np.dtype(stored)
    fed = np.dtype([(name, plain)]) if name.startswith(("qint", "quint")) else plain
    return DType(types_pb2.DataType.Value(f"DT_{name.upper()}"), name, fed, plain, field, np.dtype(wire))


def _table() -> Mapping[int, DType]:
    rows = [
        _row("half", "half_val", "i4", "f2"),
        _row("bfloat16", "half_val", "i4", ml_dtypes.bfloat16),
        _row("float", "float_val", "f4", "f4"),
        _row("double", "double_val", "f8", "f8"),
        _row("int8", "int_val", "i4", "i1"),
        _row("int16", "int_val", "i4", "i2"),
        _row("int32", "int_val", "i4", "i4"),
        _row("int64", "int64_val", "i8", "i8"),
        _row("uint8", "int_val", "i4", "u1"),
        _row("uint16", "int_val", "i4", "u2"),
        _row("uint32", "uint32_val", "u4", "u4"),
        _row("uint64", "uint64_val", "u8", "u8"),
        _row("bool", "bool_val", "?", "?"),
        _row("string", "string_val", "O", "O"),
        _row("complex64", "scomplex_val", "f4", "c8"),
        _row("complex128", "dcomplex_val", "f8", "c16"),
        _row("qint8", "int_val", "i4", "i1"),
        _row("quint8", "int_val", "i4", "u1"),
        _row("qint16", "int_val", "i4", "i2"),
        _row("quint16", "int_val", "i4", "u2"),
        _row("qint32", "int_val", "i4", "i4"),
    ]
    # Newer TensorFlow and ml_dtypes know more of these; a type is served where both do.
    small = [(name, "int_val", "i4") for name in ("int4", "uint4", "int2", "uint2")]
    floats = ("e5m2", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2fnuz")
    small += [(name, "float8_val", "u1") for name in (*(f"float8_{f}" for f in floats), "float4_e2m1fn")]
    for name, field, wire in small:
        stored = getattr(ml_dtypes, name, None)
        if stored is not None and f"DT_{name.upper()}" in types_pb2.DataType.keys():  # noqa: SIM118
            rows.append(_row(name, field, wire, stored))
    return MappingProxyType({row.enum: row for row in rows})


DTYPES: Mapping[int, DType] = _table()


def dtype_name(enum: int) -> str:
    """TensorFlow's DataTypeString (framework/types.cc), also of dtypes that are not served here."""
    if enum in DTYPES:
        return DTYPES[enum].name
    known = types_pb2.DataType.DESCRIPTOR.values_by_number.get(enum)
    return known.name.removeprefix("DT_").lower() if known else f"unknown dtype enum ({enum})"


# Where two dtypes are stored alike, as int8 and qint8 are, the plain one, which stands first in the table.
_ARRAY_DTYPES: Mapping[np.dtype[Any], DType] = MappingProxyType({row.stored: row for row in [*DTYPES.values()][::-1]})


def array_dtype(array: npt.NDArray[Any]) -> DType | None:
    """The row of an array's dtype in native byte order; of quantized types the plain one. None: no tensor has it."""
    return _ARRAY_DTYPES.get(array.dtype)


def array_dtype_name(array: npt.NDArray[Any]) -> str:
    """The DataType_Name, as in "DT_FLOAT", of an array that a session returned; of quantized types the plain one."""
    row = array_dtype(array)
    return f"DT_{row.name.upper()}" if row else str(array.dtype)


def shape_text(array: npt.NDArray[Any]) -> str:
    """The shape as TensorShape::DebugString writes it, as in [2,3]."""
    return f"[{','.join(map(str, array.shape))}]"


# -- proto to numpy ----------------------------------------------------------------------------------------------


def decode(alias: str, proto: Any) -> npt.NDArray[Any]:
    """The tensor of a TensorProto; strings as an object array of bytes. The result may be read-only.

    Raises InvalidArgument with the text of cc/saved_model/util.cc, `tensor parsing error: <alias>`, followed by the
    reason. `alias` is the name of the input in the signature.
    """
    try:
        dtype = _dtype(proto.dtype)
        shape = _shape(proto.tensor_shape)
        count = _element_count(shape)
        if count == 0:
            return np.empty(shape, dtype.numpy)
        if proto.tensor_content:
            return _from_content(dtype, proto.tensor_content, count).reshape(shape)
        return _from_values(dtype, getattr(proto, dtype.field), count).reshape(shape)
    except ValueError as error:
        raise InvalidArgument(f"tensor parsing error: {alias}: {error}") from error


def assemble(alias: str, dtype_enum: int, shape: tuple[int, ...], content: Any, values: Any) -> npt.NDArray[Any]:
    """The tensor whose parts were read from the wire by somebody else; semantics and errors are those of `decode`.

    `content`: tensor_content as a buffer, empty where there is none. `values`: those of the typed field that belongs to
    the dtype, as an array or, for strings, a list.
    """
    try:
        dtype = _dtype(dtype_enum)
        _check_shape(shape)
        count = _element_count(shape)
        if count == 0:
            return np.empty(shape, dtype.numpy)
        if len(content):
            flat = _from_content(dtype, bytes(content) if dtype.stored.kind == "O" else content, count)
        else:
            flat = _from_values(dtype, values, count)
        return flat if len(shape) == 1 else flat.reshape(shape)
    except ValueError as error:
        raise InvalidArgument(f"tensor parsing error: {alias}: {error}") from error


def _dtype(enum: int) -> DType:
    dtype = DTYPES.get(enum)
    if dtype is None:
        raise ValueError(f"dtype {dtype_name(enum)} is not supported")
    return dtype


def _shape(shape: Any) -> tuple[int, ...]:
    if shape.unknown_rank:
        raise ValueError("the rank is unknown")
    dims = tuple(dim.size for dim in shape.dim)
    _check_shape(dims)
    return dims


def _check_shape(dims: tuple[int, ...]) -> None:
    if len(dims) > MAX_RANK:
        raise ValueError(f"rank {len(dims)} is more than {MAX_RANK}")
    if dims and min(dims) < 0:
        raise ValueError(f"shape {list(dims)} has a negative dimension")


def _element_count(shape: tuple[int, ...]) -> int:
    """Like TensorShape's own count: from left to right, and no product may pass int64 even if a later one is 0."""
    count = 1
    for dim in shape:
        count *= dim
        if count > _INT64_MAX:
            raise ValueError(f"shape {list(shape)} has too many elements")
    return count


def _from_content(dtype: DType, content: Any, count: int) -> npt.NDArray[Any]:
    if dtype.stored.kind == "O":
        return _strings(_content_strings(content, count), count)
    if len(content) != count * dtype.numpy.itemsize:
        raise ValueError(f"tensor_content has {len(content)} bytes, the shape wants {count * dtype.numpy.itemsize}")
    return np.frombuffer(content, dtype.numpy)


def _content_strings(content: bytes, count: int) -> list[bytes]:
    """`count` varint32 lengths, then the strings without gaps (platform/tensor_coding.cc, DecodeStringList)."""
    if count > len(content):
        raise ValueError(f"tensor_content has {len(content)} bytes, too few for {count} strings")
    sizes = []
    position = 0
    for _ in range(count):
        size, position = _varint32(content, position)
        sizes.append(size)
    if sum(sizes) != len(content) - position:
        raise ValueError(f"tensor_content holds {len(content) - position} bytes of strings, expected {sum(sizes)}")
    strings = []
    for size in sizes:
        strings.append(content[position : position + size])
        position += size
    return strings


def _varint32(content: bytes, position: int) -> tuple[int, int]:
    """(value, position after it); coding.cc GetVarint32Ptr: at most five bytes."""
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFF, position
    raise ValueError("tensor_content has a broken string length")


def _from_values(dtype: DType, values: Any, count: int) -> npt.NDArray[Any]:
    """A typed field: cut when longer than the shape; when shorter, its last value repeats; when empty, zeros."""
    given = len(values) // 2 if dtype.stored.kind == "c" else len(values)
    if count > given and count * _repeated_bytes(dtype, values) > MAX_TENSOR_BYTES:
        raise ValueError(f"{count} elements from a list of {given} are more than {MAX_TENSOR_BYTES} bytes")
    if dtype.stored.kind == "O":
        return _strings(list(values[:count]), count)
    flat = _plain(dtype, values)
    if given == count:
        return flat if dtype.numpy is dtype.stored else flat.view(dtype.numpy)
    flat = flat[:count]
    if given < count:
        grown = np.empty(count, dtype.stored)
        grown[:given] = flat
        grown[given:] = flat[-1] if given else 0
        flat = grown
    return flat.view(dtype.numpy)


def _repeated_bytes(dtype: DType, values: Any) -> int:
    """What each element takes that is the last value once more: TensorFlow copies a string for each."""
    if dtype.stored.kind != "O":
        return dtype.numpy.itemsize
    return _STRING_BYTES + (len(values[-1]) if len(values) else 0)


def _plain(dtype: DType, values: Any) -> npt.NDArray[Any]:
    """All values of a numeric field; integers wrap when the dtype is narrower than the field."""
    if dtype.field == "float8_val":
        return np.frombuffer(values, dtype.stored)
    wire = np.asarray(values, dtype.wire)
    if dtype.field == "half_val":
        return wire.astype(np.uint16).view(dtype.stored)
    if dtype.stored.kind == "c":
        return wire[: len(wire) // 2 * 2].view(dtype.stored)
    return wire.astype(dtype.stored, copy=False)


def _strings(values: list[bytes], count: int) -> npt.NDArray[Any]:
    array = np.empty(count, object)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if values else b""
    return array


# -- numpy to proto ----------------------------------------------------------------------------------------------


def encode(array: npt.ArrayLike, dtype_enum: int, *, as_content: bool = False) -> Any:
    """The TensorProto of an array: the typed field with one entry per element, or tensor_content for numbers.

    `array` has the dtype that a session returns or takes for `dtype_enum` (`DType.stored` or `DType.numpy`); strings
    are bytes, or str that is sent as UTF-8. Raises Internal for anything else. After Tensor::AsProtoField and
    AsProtoTensorContent; strings never go to tensor_content, as in TensorFlow Serving.
    """
    dtype = DTYPES.get(dtype_enum)
    if dtype is None:
        raise Internal(f"tensor encoding error: dtype {dtype_name(dtype_enum)} is not supported")
    values = np.asarray(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.enum)
    for size in values.shape:
        proto.tensor_shape.dim.add().size = size
    if dtype.stored.kind == "O":
        proto.string_val.extend([_bytes(value) for value in values.ravel().tolist()])
        return proto
    if values.dtype not in (dtype.stored, dtype.numpy):
        raise Internal(f"tensor encoding error: expected {dtype.name}, got an array of {values.dtype}")
    flat = np.ascontiguousarray(values).reshape(-1).view(dtype.stored)
    if as_content:
        proto.tensor_content = flat.tobytes()
    else:
        _fill_field(proto, dtype, flat)
    return proto


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise Internal(f"tensor encoding error: expected bytes in a string tensor, got {type(value).__name__}")


def _fill_field(proto: Any, dtype: DType, flat: npt.NDArray[Any]) -> None:
    values = getattr(proto, dtype.field)
    if dtype.field == "float8_val":
        proto.float8_val = flat.tobytes()
    elif dtype.field == "half_val":
        values.extend(flat.view(np.uint16).tolist())
    elif dtype.wire.kind in "f?":
        # Packed, these are the array's own bytes: merged as wire format, no number becomes a Python object.
        number = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[dtype.field].number
        raw = flat.tobytes()
        proto.MergeFromString(varint(number << 3 | 2) + varint(len(raw)) + raw)
    else:
        values.extend(flat.astype(dtype.wire, copy=False).tolist())
