"""REST predict replies: TensorFlow Serving's text to the byte."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker import json_decimals
from modelpool.worker.json_reply import Layout, reply

FLOAT, DOUBLE, INT32, STRING, COMPLEX64, INT64, BOOL, HALF, UINT64 = 1, 2, 3, 7, 8, 9, 10, 19, 23


def ints(*shape: int) -> tuple[int, np.ndarray]:
    return INT32, np.arange(1, np.prod(shape, dtype=int) + 1, dtype="i4").reshape(shape)


def strings(*values: Any) -> tuple[int, np.ndarray]:
    return STRING, np.array(values, object)


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": ints(3)}, '{\n    "predictions": [1, 2, 3\n    ]\n}'),
        ({"y": ints(2, 2)}, '{\n    "predictions": [[1, 2], [3, 4]\n    ]\n}'),
        ({"y": ints(1, 2, 1)}, '{\n    "predictions": [[[1], [2]]\n    ]\n}'),
        ({"y": ints(2, 0)}, '{\n    "predictions": [[], []\n    ]\n}'),
        ({"y": ints(0, 2)}, '{\n    "predictions": []\n}'),
        (
            {"s_bytes": strings(b"hello", b"\xff")},
            '{\n    "predictions": [{\n            "b64": "aGVsbG8="\n        }, {\n'
            '            "b64": "/w=="\n        }\n    ]\n}',
        ),
        (
            {"a": ints(2), "b": (FLOAT, np.array([[1, 2], [3, 4]], "f4"))},
            '{\n    "predictions": [\n        {\n            "a": 1,\n            "b": [1.0, 2.0]\n        },\n'
            '        {\n            "a": 2,\n            "b": [3.0, 4.0]\n        }\n    ]\n}',
        ),
        (
            {"a": ints(1), "s_bytes": strings([b"x"])},
            '{\n    "predictions": [\n        {\n            "a": 1,\n            "s_bytes": [{\n'
            '                    "b64": "eA=="\n                }]\n        }\n    ]\n}',
        ),
    ],
)
def test_rows(outputs: Any, text: str) -> None:
    assert reply(outputs, Layout.ROW).decode() == text


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": (FLOAT, np.array(3, "f4"))}, '{\n    "outputs": 3.0\n}'),
        ({"y": ints(2)}, '{\n    "outputs": [\n        1,\n        2\n    ]\n}'),
        ({"y": ints(0)}, '{\n    "outputs": []\n}'),
        (
            {"y": ints(2, 1)},
            '{\n    "outputs": [\n        [\n            1\n        ],\n        [\n            2\n        ]\n    ]\n}',
        ),
        (
            {"a": ints(1), "b_bytes": (STRING, np.array(b"x", object))},
            '{\n    "outputs": {\n        "a": [\n            1\n        ],\n        "b_bytes": {\n'
            '            "b64": "eA=="\n        }\n    }\n}',
        ),
    ],
)
def test_columns(outputs: Any, text: str) -> None:
    assert reply(outputs, Layout.COLUMNAR).decode() == text


def assert_written(value: np.ndarray, text: str) -> None:
    """By itself, and among many."""
    assert json_decimals.listed(value) == [text]
    many = np.resize(value, json_decimals.MANY)
    assert json_decimals.listed(many) == [text] * len(many)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9000000, "9e+06"),
        (999999, "999999.0"),
        (0.5, "0.5"),
        (0.0003, "0.0003"),
        (0.00003, "3e-05"),
        (555557.5, "555557.5"),
        (3, "3.0"),
        (0, "0.0"),
        (-0.0, "-0.0"),
        (0.2, "0.2"),
        (1 / 3, "0.333333343"),
        (16777217, "16777216.0"),
        (1e-45, "1.4013e-45"),
        (3.4028235e38, "3.40282347e+38"),
        (np.nan, "NaN"),
        (np.inf, "Infinity"),
        (-np.inf, "-Infinity"),
    ],
)
def test_float(value: float, text: str) -> None:
    assert_written(np.array([value], "f4"), text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.33333333333333331"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (1234567, "1234567.0"),
        (123456789012345678, "1.2345678901234568e+17"),
        (np.nan, "NaN"),
        (-np.inf, "-Infinity"),
    ],
)
def test_double(value: float, text: str) -> None:
    assert_written(np.array([value], np.float64), text)


@pytest.mark.parametrize(
    ("output", "values"),
    [
        ((INT64, np.array([-(2**63), 2**63 - 1])), b"-9223372036854775808, 9223372036854775807"),
        ((UINT64, np.array([2**64 - 1], "u8")), b"18446744073709551615"),
        ((BOOL, np.array([True, False])), b"true, false"),
        (strings(b'a"\\/\n\x01\x1f', "\u00e9".encode()), b'"a\\"\\\\/\\n\\u0001\\u001F", "\xc3\xa9"'),
        (strings(b"\xff"), b'"\xff"'),
    ],
)
def test_values(output: tuple[int, np.ndarray], values: bytes) -> None:
    assert reply({"y": output}, Layout.ROW) == b'{\n    "predictions": [' + values + b"\n    ]\n}"


@pytest.mark.parametrize(
    ("outputs", "layout", "error"),
    [
        ({}, Layout.ROW, "Cannot convert empty tensor map to JSON"),
        ({"y": (FLOAT, np.array(1, "f4"))}, Layout.ROW, "Tensor name: y has no shape information "),
        (
            {"a": ints(2, 3), "b": ints(1, 3)},
            Layout.ROW,
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        ({"a": ints(0, 2), "b": ints(1)}, Layout.ROW, "Tensor name: b has inconsistent batch size: 1 expecting: 0"),
        ({"y": (HALF, np.ones(1, "f2"))}, Layout.ROW, "Failed to write JSON value for tensor type: half"),
        (
            {"y": (COMPLEX64, np.ones(1, "c8"))},
            Layout.COLUMNAR,
            "Failed to write JSON value for tensor type: complex64",
        ),
    ],
)
def test_errors(outputs: Any, layout: Layout, error: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        reply(outputs, layout)
    assert caught.value.message == error


def test_a_dtype_that_json_does_not_carry_is_fine_while_it_is_empty() -> None:
    assert reply({"y": (HALF, np.ones((0, 2), "f2"))}, Layout.ROW) == b'{\n    "predictions": []\n}'


# -- many numbers ------------------------------------------------------------------------------------------------


def written(value: Any) -> str:
    """json_tensor.cc WriteDecimal, one number at a time."""
    number = float(value)
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    text = f"{number:g}"
    with np.errstate(over="ignore"):
        if type(value)(float(text)) != value:
            text = f"{number:.{9 if isinstance(value, np.float32) else 17}g}"
    return text if "." in text or "e" in text else f"{text}.0"


SINGLE = st.one_of(
    st.floats(width=32),
    st.floats(-1, 1, width=32),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=4).map(float),
    st.builds(lambda digits, exponent: digits * 10.0**exponent, st.integers(-9999999, 9999999), st.integers(-22, 6)),
    st.sampled_from([9.9999999e-5, 999999.5, 999999.94, 9.999995e-6, 99999.95, 1e6, 16777217, 0.0, -0.0]),
)


@given(st.lists(st.one_of(SINGLE, st.floats()), min_size=1, max_size=80), st.sampled_from(["f4", "f8"]))
@settings(max_examples=100, deadline=None)
def test_many_floats_are_written_like_each_of_them(numbers: list[float], dtype: str) -> None:
    with np.errstate(over="ignore"):
        values = np.resize(np.array(numbers).astype(dtype), json_decimals.MANY + len(numbers))
    assert json_decimals.listed(values) == [written(value) for value in values]


@pytest.mark.parametrize(("dtype", "bits"), [("f4", "u4"), ("f8", "u8")])
def test_floats_of_every_size_are_written_like_each_of_them(dtype: str, bits: str) -> None:
    """Random bits, random decimals, and the neighbours of powers of ten."""
    random = np.random.default_rng(7)
    powers = (10.0 ** np.arange(-16, 12)).astype(dtype).view(bits)
    near = (powers[:, np.newaxis] + np.arange(-20, 21).astype(bits)).ravel().view(dtype)
    spread = (10.0 ** random.uniform(-16, 12, 4000)).astype(dtype)
    short = np.array([float(f"{value:.{digits}g}") for value, digits in zip(spread, [4, 5, 6, 7] * 1000, strict=True)])
    anything = random.integers(0, np.iinfo(bits).max, 2000, dtype=bits).view(dtype)
    values = np.concatenate([near, spread, short.astype(dtype), -spread, anything])
    assert json_decimals.listed(values) == [written(value) for value in values]


KINDS = {
    FLOAT: "f4",
    DOUBLE: "f8",
    INT32: "i4",
    INT64: "i8",
    UINT64: "u8",
    BOOL: "?",
    6: "i1",
    4: "u1",
    22: "u4",
    5: "i2",
}


@pytest.mark.parametrize("enum", KINDS)
@pytest.mark.parametrize(
    "shape", [(1, 400), (400,), (2, 200), (1, 20, 20), (20, 1, 5, 4), (2, 0, 3), (1,) * 7 + (100,) + (1,) * 4 + (2, 1)]
)
@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("outputs", [1, 2])
def test_big_outputs_are_laid_out_like_small_ones(enum: int, shape: Any, layout: Layout, outputs: int) -> None:
    random = np.random.default_rng(enum)
    array = np.frombuffer(random.bytes(400 * 8), KINDS[enum] if enum != BOOL else "u1")[: math.prod(shape)]
    array = (array % 2).astype(bool) if enum == BOOL else array
    given_outputs = {f"y{index}": (enum, array.reshape(shape)) for index in range(outputs)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_decimals, "MANY", 10**9)
        slow = reply(given_outputs, layout)
    assert reply(given_outputs, layout) == slow


def test_an_array_that_lies_elsewhere_in_memory_is_written_in_its_order() -> None:
    array = np.arange(200, dtype="f4").reshape(10, 20)
    assert reply({"y": (FLOAT, array.T)}, Layout.ROW) == reply({"y": (FLOAT, array.T.copy())}, Layout.ROW)
    assert reply({"y": (INT32, array.astype("i4")[::-1, ::2])}, Layout.ROW).startswith(
        b'{\n    "predictions": [[180, 182'
    )
