"""Values to TensorProtos: literals in the declared dtype, arrays as they are, and every array back as it was."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from modelpool.frontend.client import InputError, Signature, TensorSpec
from modelpool.frontend.client import examples as tf_examples
from modelpool.frontend.client.inputs import encode, named, needs_signature
from modelpool.frontend.client.protos import ClassificationRequest, Example, tensors

ENUMS = {"float16": 19, "bfloat16": 14, "float32": 1, "float64": 2, "complex64": 8, "complex128": 18, "bool": 10}
ENUMS |= {"int8": 6, "int16": 5, "int32": 3, "int64": 9, "uint8": 4, "uint16": 17, "uint32": 22, "uint64": 23}
ENUMS |= {"string": 7, "qint8": 11, "int4": 29}


def declared(dtype: str) -> Signature:
    return Signature("", {"x": TensorSpec(dtype, None, "x:0", ENUMS[dtype])}, {}, frozenset())


def sent(value: Any, dtype: str | None = None) -> np.ndarray:
    """What a server reads; its numbers are in tensor_content."""
    proto = encode("x", value, declared(dtype) if dtype else None)
    assert proto.dtype == 7 or proto.tensor_content or 0 in [dim.size for dim in proto.tensor_shape.dim]
    return tensors.decode("x", type(proto).FromString(proto.SerializeToString()))


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1.0, 2.0], "float32", np.array([1, 2], np.float32)),
        ([1, 2], "float32", np.array([1, 2], np.float32)),
        ([1, 2.5], "float16", np.array([1, 2.5], np.float16)),
        (0.5, "bfloat16", np.array(0.5, ml_dtypes.bfloat16)),
        ([1.1], "float64", np.array([1.1])),
        ([[1], [2]], "int64", np.array([[1], [2]])),
        (range(3), "int8", np.arange(3, dtype=np.int8)),
        ((1, 2), "uint8", np.array([1, 2], np.uint8)),
        ([2**64 - 1, 0], "uint64", np.array([2**64 - 1, 0], np.uint64)),
        ([2**63, 1], "uint64", np.array([2**63, 1], np.uint64)),
        ([-(2**63), 2**63 - 1], "int64", np.array([-(2**63), 2**63 - 1])),
        ([-8, 7], "int4", np.array([-8, 7], ml_dtypes.int4)),
        ([1 + 2j], "complex64", np.array([1 + 2j], np.complex64)),
        ([1], "complex128", np.array([1], np.complex128)),
        ([True, False], "bool", np.array([True, False])),
        ([], "int32", np.empty(0, np.int32)),
        ([[], []], "float32", np.empty((2, 0), np.float32)),
        ([float("inf"), float("-inf")], "float32", np.array([np.inf, -np.inf], np.float32)),
        ([np.float64(1.5), 2], "float32", np.array([1.5, 2], np.float32)),
        ([np.array([1.5]), np.array([2.5])], "float32", np.array([[1.5], [2.5]], np.float32)),
    ],
)
def test_a_literal_becomes_what_the_signature_declares(value: Any, dtype: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(sent(value, dtype), expected, strict=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1.0, 2.0], np.array([1, 2], np.float32)),
        (7, np.array(7, np.int32)),
        ([2**31], np.array([2**31])),
        ([1j], np.array([1j])),
        (True, np.array(True)),
        ([], np.empty(0, np.float32)),
        ([np.float64(1.5)], np.array([1.5])),
    ],
)
def test_without_a_signature_a_literal_becomes_what_tensorflow_makes_of_it(value: Any, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(sent(value), expected, strict=True)


@pytest.mark.parametrize("dtype", [None, "float32", "string"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", b"a"),
        (b"a\0", b"a\0"),
        (["ä", b"\xff\0"], ["ä".encode(), b"\xff\0"]),
        ([["a"], ["bc"]], [[b"a"], [b"bc"]]),
        (np.array(["ä", "b"]), ["ä".encode(), b"b"]),
        (np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (np.array(["a", b"b"], object), [b"a", b"b"]),
        (np.str_("a"), b"a"),
        ([np.array(["a"]), np.array(["b"])], [[b"a"], [b"b"]]),
    ],
)
def test_texts(value: Any, expected: Any, dtype: str | None) -> None:
    assert sent(value, dtype).tolist() == expected


@pytest.mark.parametrize(
    ("value", "dtype", "why"),
    [
        ([1.5], "int32", "the model wants int32, got float64"),
        ([1.0], "int64", "the model wants int64, got float64"),
        ([300], "uint8", "300 does not fit into uint8"),
        ([1, -1], "uint64", "-1 does not fit into uint64"),
        ([2**64], "int64", f"{2**64} does not fit into int64"),
        ([8], "int4", "8 does not fit into int4"),
        ([1], "bool", "the model wants bool, got int64"),
        ([1], "string", "the model wants string, got int64"),
        ([1j], "float32", "the model wants float32, got complex128"),
        ([1e39], "float32", "a number is too big for float32"),
        ([[1], [1, 2]], "float32", "inhomogeneous shape"),
        ([["a"], ["b", "c"]], "string", "expected bytes in a string tensor, got list"),
        (["a", 1], "string", "expected bytes in a string tensor, got int"),
        (np.array(["2020-01-01"], "datetime64[D]"), "int64", "has no TensorFlow dtype"),
        (np.array([object()]), "string", "expected bytes in a string tensor, got object"),
        ([None], "float32", "the model wants float32, got object"),
        (None, "float32", "expected bytes in a string tensor, got NoneType"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_it_is_sent(value: Any, dtype: str, why: str) -> None:
    with pytest.raises(InputError) as refused:
        encode("x", value, declared(dtype))
    assert "input 'x': " in refused.value.message
    assert why in refused.value.message


_NUMERIC = [row for row in tensors.DTYPES.values() if row.name != "string" and row.stored == row.numpy]
_SHAPES = st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(_NUMERIC), _SHAPES, st.data(), st.sampled_from([None, "float32", "string"]))
def test_numeric_arrays_are_sent_as_they_are(
    row: tensors.DType, shape: tuple[int, ...], data: st.DataObject, dtype: str | None
) -> None:
    size = int(np.prod(shape)) * row.stored.itemsize
    if row.name == "bool":
        raw = bytes(data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    else:
        raw = data.draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(raw, row.stored).reshape(shape)
    got = sent(array.copy(order="F"), dtype)
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(st_numpy.arrays(object, _SHAPES, elements=st.binary(max_size=5)))
def test_arrays_of_bytes_are_sent_as_they_are(array: np.ndarray) -> None:
    np.testing.assert_array_equal(sent(array), array, strict=True)


@given(st.lists(st.floats(width=32, allow_nan=False)), st.lists(st.integers(-128, 127)))
def test_literals_keep_their_values(floats: list[float], integers: list[int]) -> None:
    assert sent(floats, "float32").tolist() == floats
    assert sent(integers, "int8").tolist() == integers


def test_byte_order_and_strides_are_no_concern_of_the_user() -> None:
    big_endian = np.arange(6, dtype=">f4").reshape(2, 3).T
    np.testing.assert_array_equal(sent(big_endian), big_endian.astype("f4"), strict=True)


def test_bytes_of_a_declared_quantized_type() -> None:
    assert encode("x", np.array([1], np.int8), declared("qint8")).dtype == ENUMS["qint8"]
    assert encode("x", [1], declared("qint8")).dtype == ENUMS["qint8"]
    assert encode("x", np.array([1], np.int8), None).dtype == ENUMS["int8"]


@pytest.mark.parametrize(
    ("inputs", "needed"),
    [
        ({"x": np.zeros(2)}, False),
        ({"x": np.float32(1)}, False),
        ({"x": "a", "y": [b"b"]}, False),
        ({"x": [[True]]}, False),
        ({"x": [1.0]}, True),
        ({"x": np.zeros(2), "y": 1}, True),
        ({"x": []}, True),
        (np.zeros(2), True),
        ([1.0], True),
    ],
)
def test_the_signature_is_asked_for_where_it_matters(inputs: Any, needed: bool) -> None:
    assert needs_signature(inputs) is needed


def test_a_bare_value_is_the_only_input() -> None:
    assert named([1.0], declared("float32")) == {"x": [1.0]}
    two = Signature("", {name: TensorSpec("float32", None, "", 1) for name in "ab"}, {}, frozenset())
    with pytest.raises(InputError, match="the signature's inputs are: a, b"):
        named([1.0], two)
    with pytest.raises(InputError, match="the signature's inputs are not known"):
        named([1.0], None)


def filled(examples: Any, context: Any = None) -> Any:
    request = ClassificationRequest()
    tf_examples.fill(request.input, examples, context)
    return request.input


def test_the_types_of_features() -> None:
    values = {"t": "ä", "b": [b"\xff"], "i": 2, "n": True, "f": [1, 2.5], "a": np.array([[1.5]], "f4"), "e": []}
    (example,) = filled([values]).example_list.examples
    feature = example.features.feature
    assert list(feature["t"].bytes_list.value) == ["ä".encode()]
    assert list(feature["b"].bytes_list.value) == [b"\xff"]
    assert list(feature["i"].int64_list.value) == [2]
    assert list(feature["n"].int64_list.value) == [1]
    assert list(feature["f"].float_list.value) == [1.0, 2.5]
    assert list(feature["a"].float_list.value) == [1.5]
    assert feature["e"].WhichOneof("kind") is None


def test_ready_examples_and_a_context() -> None:
    ready = Example()
    ready.features.feature["x"].float_list.value.append(1.0)
    made = filled([ready, ready.SerializeToString()], {"c": 1}).example_list_with_context
    assert list(made.examples) == [ready, ready]
    assert list(made.context.features.feature["c"].int64_list.value) == [1]


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        ({"x": 1.0}, "expected a list of examples"),
        (b"", "expected a list of examples"),
        (7, "expected a list of examples"),
        ([], "expected at least one"),
        ([7], r"examples\[0\]: expected a mapping of features to values, got int"),
        ([b"\xff"], r"examples\[0\]: not the bytes of a tf.Example"),
        ([{"x": ["a", 1]}], r"examples\[0\]\['x'\]: expected texts or numbers, got int, str"),
        ([{}, {"x": None}], r"examples\[1\]\['x'\]: expected texts or numbers, got NoneType"),
        ([{"x": 2**63}], r"examples\[0\]\['x'\]: .*out of range"),
    ],
)
def test_examples_that_are_none(examples: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        filled(examples)
