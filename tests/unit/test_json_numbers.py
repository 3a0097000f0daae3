"""Big lists of numbers that are read from the text: never another tensor or error than value by value."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import PoolError
from modelpool.worker import json_numbers, rest_json

FLOAT, DOUBLE, INT32, UINT8, STRING, INT64, BOOL, HALF, UINT64 = 1, 2, 3, 4, 7, 9, 10, 19, 23
DTYPES = (FLOAT, DOUBLE, INT32, UINT8, STRING, INT64, BOOL, HALF, UINT64)

# -- what is taken out -------------------------------------------------------------------------------------------


def big(shape: tuple[int, ...]) -> Any:
    return (np.arange(math.prod(shape)) / 8).reshape(shape).tolist()


@pytest.mark.parametrize(
    "document",
    [
        {"instances": big((1, 30, 30, 3))},
        {"signature_name": "s", "inputs": big((3000,)), "more": "text"},
        {"inputs": {"a": big((40, 40, 1)), "b": ["x"], "c": [{"b64": "eA=="}]}},
        {"instances": [{"a": big((50, 50)), "b": "x"}, {"a": big((50, 50)), "b": "y"}]},
    ],
)
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 4}], ids=["spaced", "packed", "indented"])
def test_big_lists_are_taken_out_of_every_layout(document: Any, style: Any) -> None:
    lifted = json_numbers.lift(json.dumps(document, **style).encode())
    assert lifted is not None
    small = json.loads(lifted.rest)
    assert len(lifted.rest) < json_numbers.LEAST_BYTES
    assert lifted.put_back(small, ("instances", "inputs"))
    assert json.loads(json.dumps(small, default=lambda array: array.tolist())) == document


@pytest.mark.parametrize(
    "text",
    [
        "[1[,2]]", "[1]2,[]]", "[[1,2],[3]]", "[[1,2],3]", "[1 2]", "[1,]", "[,1]", "[]", "[[],[]]", "[1,true]",
        "[null]", "[Infinity]", "[[1]][1]", "[01]", "[1.]", "[+1]", "[1e]", "[--1]", "[1e999]", "[-NaN]", "[NaNNaN]",
        "[Na N]", "[[1,[2]]]", "[1]]", "[[1]", "1", '["1"]', "[1,\v2]", "[" * 40 + "1" + "]" * 40,
    ],
)  # fmt: skip
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert json_numbers._array(bytearray(text, "utf-8")) is None


def test_booleans_among_the_numbers_of_a_big_body_are_refused() -> None:
    body = json.dumps({"instances": [*big((3000,)), True]}).encode()
    with pytest.raises(PoolError, match="JSON Value: true Type: True is not of expected type: float"):
        rest_json.parse(memoryview(body)).tensors({"x": FLOAT})


def test_a_big_list_in_the_place_of_a_name_is_no_name() -> None:
    body = json.dumps({"signature_name": big((3000,)), "instances": [1]}).encode()
    assert json_numbers.lift(body) is not None
    with pytest.raises(PoolError, match="'signature_name' key must be a string value"):
        rest_json.parse(body)


@pytest.mark.parametrize("second", [(2999,), (3000, 1), (7,)], ids=str)
def test_rows_with_big_lists_of_different_shapes_are_refused(second: tuple[int, ...]) -> None:
    body = json.dumps({"instances": [{"a": big((3000,))}, {"a": big(second)}]}).encode()
    with pytest.raises(PoolError, match="Failed to process element: 1 key: a of 'instances' list"):
        rest_json.parse(body).tensors({"a": FLOAT})


# -- the two ways are one ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def every_list_is_big() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_numbers, "LEAST_BYTES", 1)
        patch.setattr(json_numbers, "_BYTES_OF_A_STRING", 1)
        yield


NUMBERS = st.one_of(
    st.integers(-3, 300).map(str),
    st.integers(-(2**64) - 2, 2**64 + 2).map(str),
    st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64]).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1E5", "1e+2", "1e39", "16777217", "9007199254740993", "NaN", "0.1e-400"]),
)
ODD = st.sampled_from(["true", "null", '"x"', "Infinity", "-NaN", "01", "1.", "{}", '{"b64": "eA=="}', "1e999", "[]"])
SPACES = st.sampled_from(["", "", " ", "\n  "])


@st.composite
def lists(draw: st.DrawFn) -> str:
    """A nested list of numbers, most often a regular one."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    numbers = NUMBERS if draw(st.booleans()) else st.integers(0, 9).map(str)
    elements = st.one_of(numbers, ODD) if draw(st.integers(0, 9)) == 0 else numbers
    texts = draw(st.lists(elements, min_size=math.prod(shape), max_size=math.prod(shape)))
    space = draw(SPACES)
    for size in reversed(shape):
        texts = [f"[{space}{f',{space}'.join(texts[at : at + size])}{space}]" for at in range(0, len(texts), size)]
    return texts[0]


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A predict body in one of the layouts, often with something wrong in it."""
    colon = ":" + draw(SPACES)
    value = st.one_of(lists(), lists(), lists(), ODD, NUMBERS)
    members = [
        f'"{name}"{colon}{draw(value)}' for name in draw(st.lists(st.sampled_from(["a", "b", "b64"]), max_size=3))
    ]
    rows = draw(st.lists(st.just(f"{{{', '.join(members)}}}"), min_size=1, max_size=2))
    content = draw(st.sampled_from([draw(value), f"{{{', '.join(members)}}}", f"[{', '.join(rows)}]"]))
    key = draw(st.sampled_from(["instances", "inputs", "instances", "inputs", "other"]))
    extra = draw(
        st.sampled_from(["", "", "", ', "signature_name": "s"', f', "extra": {draw(lists())}', ', "inputs": [1]'])
    )
    return f'{{"{key}"{colon}{content}{extra}}}{draw(st.sampled_from(["", "", " tail", "}"]))}'


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    """A body in which a few characters are others, are gone or are too many."""
    text = draw(bodies())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from([*'[],{}":0-.eN \\\x00é', ""])) + text[at + draw(st.integers(0, 1)) :]
    return text


def outcome(body: rest_json.PredictBody, inputs: dict[str, int]) -> Any:
    arrays, layout = body.tensors(inputs)
    found = {
        name: (array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in arrays.items()
    }
    return body.signature_name, layout, found


def tried(way: Any, text: bytes, inputs: dict[str, int]) -> Any:
    try:
        return outcome(way(text), inputs)
    except PoolError as error:
        return type(error), error.message


@given(st.one_of(bodies(), spoilt()), st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(DTYPES), min_size=1))
@settings(max_examples=150, deadline=None)
def test_the_same_tensors_and_errors_as_value_by_value(text: str, inputs: dict[str, int]) -> None:
    raw = text.encode()
    with every_list_is_big():
        fast = tried(rest_json.parse, raw, inputs)
    assert fast == tried(rest_json._parsed, raw, inputs)


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.integers(0, 9)), min_size=81, max_size=81),
    st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}]),
)
@settings(max_examples=50, deadline=None)
def test_a_regular_list_is_what_numpy_makes_of_it(shape: list[int], numbers: list[Any], style: Any) -> None:
    nested = np.array([0 if math.isinf(each) else each for each in numbers[: math.prod(shape)]], object)
    nested = nested.reshape(shape).tolist()
    found = json_numbers._array(bytearray(json.dumps(nested, **style), "utf-8"))
    assert found is not None
    np.testing.assert_array_equal(found, np.array(nested), strict=True)
