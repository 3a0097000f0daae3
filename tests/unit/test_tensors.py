"""TensorProto to numpy and back: TensorFlow's rules for short, long and empty fields, and identity for each dtype."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import Internal, InvalidArgument
from modelpool.supervisor.wire import tensors
from tensorflow.core.framework import tensor_pb2, types_pb2

NUMERIC = [row for row in tensors.DTYPES.values() if row.name != "string"]


def proto(dtype: int, *dims: int, **fields: Any) -> Any:
    message = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for dim in dims:
        message.tensor_shape.dim.add().size = dim
    return message


def same_bytes(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def test_every_dtype_of_tensorflow_is_in_the_table_except_handles() -> None:
    served = {name for name, value in types_pb2.DataType.items() if value in tensors.DTYPES}
    known = {name for name in types_pb2.DataType.keys() if not name.endswith("_REF")}  # noqa: SIM118
    assert known - served == {"DT_INVALID", "DT_RESOURCE", "DT_VARIANT"}


@pytest.mark.parametrize(
    ("enum", "name"), [(1, "float"), (19, "half"), (3, "int32"), (7, "string"), (20, "resource"), (14, "bfloat16")]
)
def test_names_are_tensorflows(enum: int, name: str) -> None:
    assert tensors.dtype_name(enum) == name


def test_the_name_of_an_unknown_dtype() -> None:
    assert tensors.dtype_name(99) == "unknown dtype enum (99)"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(1, 3, float_val=[1, 2, 3]), np.array([1, 2, 3], "f4")),
        (proto(1, 2, 2, float_val=[1, 2]), np.array([[1, 2], [2, 2]], "f4")),
        (proto(1, 2, float_val=[1, 2, 3]), np.array([1, 2], "f4")),
        (proto(1, 2), np.zeros(2, "f4")),
        (proto(1, float_val=[5]), np.array(5, "f4")),
        (proto(1), np.array(0, "f4")),
        (proto(1, 0, 3, float_val=[5]), np.empty((0, 3), "f4")),
        (proto(1, 2, tensor_content=np.array([3, 4], "f4").tobytes(), float_val=[9]), np.array([3, 4], "f4")),
        (proto(2, 2, double_val=[0.5]), np.array([0.5, 0.5])),
        (proto(19, 2, half_val=[0x3C00, 0xC000]), np.array([1, -2], "f2")),
        (proto(14, 2, half_val=[0x3F80]), np.array([1, 1], ml_dtypes.bfloat16)),
        (proto(24, 3, float8_val=b"\x3c\x40"), np.array([1, 2, 2], ml_dtypes.float8_e5m2)),
        (proto(6, 3, int_val=[1, -1, 300]), np.array([1, -1, 44], "i1")),
        (proto(4, 2, int_val=[255, 256]), np.array([255, 0], "u1")),
        (proto(17, 1, int_val=[65535]), np.array([65535], "u2")),
        (proto(9, 2, int64_val=[-(2**63), 2**63 - 1]), np.array([-(2**63), 2**63 - 1])),
        (proto(23, 1, uint64_val=[2**64 - 1]), np.array([2**64 - 1], "u8")),
        (proto(22, 1, uint32_val=[2**32 - 1]), np.array([2**32 - 1], "u4")),
        (proto(10, 3, bool_val=[True, False]), np.array([True, False, False])),
        (proto(8, 2, scomplex_val=[1, 2, 3]), np.array([1 + 2j, 1 + 2j], "c8")),
        (proto(18, 1, dcomplex_val=[1, 2]), np.array([1 + 2j])),
        (proto(11, 2, int_val=[-3]), np.array([(-3,), (-3,)], [("qint8", "i1")])),
        (proto(29, 2, int_val=[-8, 7]), np.array([-8, 7], ml_dtypes.int4)),
    ],
)
def test_decode(message: Any, expected: np.ndarray) -> None:
    array = tensors.decode("x", message)
    assert array.dtype == expected.dtype
    assert same_bytes(array, expected)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(7, 3, string_val=[b"a", b"\xff"]), [b"a", b"\xff", b"\xff"]),
        (proto(7, 2), [b"", b""]),
        (proto(7, 1, string_val=[b"a", b"b"]), [b"a"]),
        (proto(7, string_val=[b"a"]), b"a"),
        (proto(7, 0), []),
        (proto(7, 3, tensor_content=b"\x01\x00\x02abc"), [b"a", b"", b"bc"]),
        (proto(7, 1, tensor_content=b"\x80\x01" + b"x" * 128), [b"x" * 128]),
    ],
)
def test_decode_strings(message: Any, expected: Any) -> None:
    array = tensors.decode("x", message)
    assert array.dtype == object
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (proto(0, 1), "dtype invalid is not supported"),
        (proto(20, 1), "dtype resource is not supported"),
        (proto(101, 1), "dtype float_ref is not supported"),
        (proto(1, -1), "shape [-1] has a negative dimension"),
        (proto(1, 2**40, 2**40, 0), f"shape [{2**40}, {2**40}, 0] has too many elements"),
        (proto(1, *[1] * 65), "rank 65 is more than 64"),
        (proto(1, 2, tensor_content=b"1234567"), "tensor_content has 7 bytes, the shape wants 8"),
        (proto(1, 2**40, tensor_content=b"1234"), f"tensor_content has 4 bytes, the shape wants {2**42}"),
        (
            proto(1, 2**30, float_val=[1]),
            f"{2**30} elements from a list of 1 are more than {2**31 - 1} bytes",
        ),
        (proto(7, 2**27), f"{2**27} elements from a list of 0 are more than {2**31 - 1} bytes"),
        (
            proto(7, 2**12, string_val=[b"", b"x" * 2**19]),
            f"{2**12} elements from a list of 2 are more than {2**31 - 1} bytes",
        ),
        (proto(7, 2**50, tensor_content=b"\x00"), f"tensor_content has 1 bytes, too few for {2**50} strings"),
        (proto(7, 1, tensor_content=b"\x05abc"), "tensor_content holds 3 bytes of strings, expected 5"),
        (proto(7, 1, tensor_content=b"\x02abc"), "tensor_content holds 3 bytes of strings, expected 2"),
        (proto(7, 2, tensor_content=b"\x00\x80"), "tensor_content has a broken string length"),
        (proto(7, 1, tensor_content=b"\xff" * 6), "tensor_content has a broken string length"),
    ],
)
def test_decode_refuses(message: Any, why: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tensors.decode("images", message)
    assert caught.value.message == f"tensor parsing error: images: {why}"


def test_decode_refuses_an_unknown_rank() -> None:
    message = proto(1, float_val=[1])
    message.tensor_shape.unknown_rank = True
    with pytest.raises(InvalidArgument, match=r"^tensor parsing error: x: the rank is unknown$"):
        tensors.decode("x", message)


@pytest.mark.parametrize(
    ("array", "enum", "field", "values"),
    [
        (np.array([[1, 2]], "f4"), 1, "float_val", [1, 2]),
        (np.array(2.5), 2, "double_val", [2.5]),
        (np.array([1, 1], "f2"), 19, "half_val", [0x3C00, 0x3C00]),
        (np.array([-1], "i1"), 6, "int_val", [-1]),
        (np.array([-1], "i1"), 11, "int_val", [-1]),
        (np.array([True, False]), 10, "bool_val", [True, False]),
        (np.array([1 + 2j], "c8"), 8, "scomplex_val", [1, 2]),
        (np.array([b"a", "\u00e9"], object), 7, "string_val", [b"a", b"\xc3\xa9"]),
        (np.array([[1, 2], [3, 4]], "i4").T, 3, "int_val", [1, 3, 2, 4]),
    ],
)
def test_encode_gives_one_entry_for_each_element(array: Any, enum: int, field: str, values: Any) -> None:
    message = tensors.encode(array, enum)
    assert message.dtype == enum
    assert [dim.size for dim in message.tensor_shape.dim] == list(array.shape)
    assert list(getattr(message, field)) == values
    assert {set_field.name for set_field, _ in message.ListFields()} <= {"dtype", "tensor_shape", field}


def test_encode_as_content_spares_strings() -> None:
    numbers = tensors.encode(np.array([1, 2], "i4"), 3, as_content=True)
    assert numbers.tensor_content == np.array([1, 2], "i4").tobytes()
    assert not numbers.int_val
    strings = tensors.encode(np.array([b"a"], object), 7, as_content=True)
    assert list(strings.string_val) == [b"a"]
    assert not strings.tensor_content


@pytest.mark.parametrize(
    ("array", "enum", "text"),
    [
        (np.zeros(1, "f4"), 3, "expected int32, got an array of float32"),
        (np.zeros(1, "f4"), 20, "dtype resource is not supported"),
        (np.array([1], object), 7, "expected bytes in a string tensor, got int"),
    ],
)
def test_encode_refuses(array: Any, enum: int, text: str) -> None:
    with pytest.raises(Internal) as caught:
        tensors.encode(array, enum)
    assert caught.value.message == f"tensor encoding error: {text}"


shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn, row: tensors.DType) -> np.ndarray:
    shape = draw(shapes)
    count = int(np.prod(shape, dtype=int))
    raw = draw(st.binary(min_size=count * row.stored.itemsize, max_size=count * row.stored.itemsize))
    if row.name == "bool":
        raw = bytes(byte & 1 for byte in raw)
    flat = np.frombuffer(raw, row.stored)
    if row.name in ("int4", "uint4", "int2", "uint2"):
        flat = np.frombuffer(raw, "i1").astype(row.stored)
    if row.name == "float4_e2m1fn":
        flat = np.frombuffer(bytes(byte & 15 for byte in raw), row.stored)
    return flat.view(row.numpy).reshape(shape)


@pytest.mark.parametrize("row", NUMERIC, ids=lambda row: row.name)
@given(data=st.data(), as_content=st.booleans())
@settings(max_examples=10, deadline=None)
def test_tensor_to_proto_to_tensor(row: tensors.DType, data: st.DataObject, as_content: bool) -> None:
    array = data.draw(arrays(row))
    for same in (array, array.view(row.stored)):
        wire = tensors.encode(same, row.enum, as_content=as_content).SerializeToString()
        back = tensors.decode("x", tensor_pb2.TensorProto.FromString(wire))
        assert back.dtype == row.numpy
        assert same_bytes(back, array)


@given(shape=shapes, data=st.data())
@settings(max_examples=30, deadline=None)
def test_strings_to_proto_to_strings(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = int(np.prod(shape, dtype=int))
    array = np.empty(count, object)
    array[:] = data.draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
    array = array.reshape(shape)
    back = tensors.decode("x", tensors.encode(array, 7))
    assert back.shape == shape
    assert back.tolist() == array.tolist()
