"""REST predict replies: TensorFlow Serving's text to the byte."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker import json_text
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
    assert json_text.decimals(np.array([value], "f4")) == [text]


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
    assert json_text.decimals(np.array([value])) == [text]


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
