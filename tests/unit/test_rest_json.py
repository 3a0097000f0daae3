"""REST predict bodies: which tensors they give, and TensorFlow Serving's texts for those that give none."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import InvalidArgument, PoolError, Unimplemented
from modelpool.supervisor.wire import tensors
from modelpool.worker import json_values, rest_json
from modelpool.worker.rest_json import Layout

FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING = 1, 2, 3, 4, 5, 6, 7
COMPLEX64, INT64, BOOL, BFLOAT16, UINT16, HALF, UINT32, UINT64 = 8, 9, 10, 14, 17, 19, 22, 23


def tensors_of(body: str | bytes, **inputs: int) -> dict[str, np.ndarray]:
    arrays, _ = rest_json.parse(body if isinstance(body, bytes) else body.encode()).tensors(inputs)
    return arrays


def error_of(body: str | bytes, **inputs: int) -> str:
    with pytest.raises(PoolError) as caught:
        tensors_of(body, **inputs)
    return caught.value.message


# -- depth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[" * 20_000, "JSON Parse error: Invalid value. at offset: 20000"),
        (b'{"a":' * 20_000, "JSON Parse error: Invalid value. at offset: 100000"),
        (
            b'{"inputs":' + b"[" * 20_000 + b"1" + b"]" * 20_000 + b"}",
            "tensor parsing error: rank 20000 is more than 64",
        ),
        (b'{"instances":[1,' + b"[" * 20_000 + b"1" + b"]" * 20_000 + b"]}", "Failed to process element: 1 of"),
    ],
)
def test_depth_does_not_recurse(body: bytes, error: str) -> None:
    assert error_of(body, x=FLOAT).startswith(error)


# -- the body ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("[1]", "JSON Value: [\n    1\n] Is not object"),
        ("3", "JSON Value: 3 Is not object"),
        ("null", "JSON Value: null Is not object"),
        (
            '{"signature_name": 5}',
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ("{}", "Missing 'inputs' or 'instances' key"),
        (
            '{"instances":[1],"inputs":1}',
            'JSON Value: {\n    "instances": [\n        1\n    ],\n    "inputs": 1\n} '
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        ('{"instances":1}', "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array"),
        ('{"instances":[]}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    ],
)
def test_body_errors(body: str, error: str) -> None:
    assert error_of(body, x=FLOAT) == error


def test_a_signature_without_inputs() -> None:
    assert error_of('{"inputs":1}') == "Failed to get input map for signature: DEFAULT"
    assert error_of('{"inputs":1,"signature_name":"s"}') == "Failed to get input map for signature: s"


def test_signature_name() -> None:
    assert rest_json.parse(b'{"signature_name":"predict_images"}').signature_name == "predict_images"
    assert rest_json.parse(b"{}").signature_name == ""


def test_long_values_are_cut_in_messages() -> None:
    message = error_of(json.dumps({"inputs": "x" * 10_000}), x=FLOAT)
    assert message == f'JSON Value: "{"x" * 255}... Type: String is not of expected type: float'
    wide = error_of(json.dumps(list(range(100_000))), x=FLOAT)
    assert len(wide) < 300
    assert wide.endswith("... Is not object")


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ("[1, 2.5, -3e-1]", FLOAT, np.array([1, 2.5, -0.3], "f4")),
        ("[1e39, -1e39, 1e-60]", FLOAT, np.array([np.inf, -np.inf, 0], "f4")),
        ("[NaN, Infinity, -Infinity, Inf]", DOUBLE, np.array([np.nan, np.inf, -np.inf, np.inf])),
        ("[16777217, 18446744073709551615]", FLOAT, np.array([16777216, 2.0**64], "f4")),
        ("[9007199254740993]", DOUBLE, np.array([9007199254740992.0])),
        ("[-0, -0.0]", DOUBLE, np.array([0.0, -0.0])),
        ("[-2147483648, 2147483647]", INT32, np.array([-(2**31), 2**31 - 1], "i4")),
        ("[300, -129, 2147483647]", INT8, np.array([44, 127, -1], "i1")),
        ("[256, -1]", UINT8, np.array([0, 255], "u1")),
        ("[65536]", INT16, np.array([0], "i2")),
        ("[9223372036854775807, -9223372036854775808]", INT64, np.array([2**63 - 1, -(2**63)])),
        ("[18446744073709551615, 0]", UINT64, np.array([2**64 - 1, 0], "u8")),
        ("[4294967295]", UINT32, np.array([2**32 - 1], "u4")),
        ("[true, false]", BOOL, np.array([True, False])),
        ("[[1, 2], [3, 4], [5, 6]]", INT32, np.array([[1, 2], [3, 4], [5, 6]], "i4")),
        ("[[], []]", FLOAT, np.empty((2, 0), "f4")),
        ("[[[]]]", HALF, np.empty((1, 1, 0), "f2")),
    ],
)
@pytest.mark.parametrize("tail", ["", " x", ', "t": [true, NaN]'], ids=["fast", "exact", "beside booleans"])
def test_numbers(value: str, dtype: int, expected: np.ndarray, tail: str) -> None:
    inside, after = (tail, "") if tail.startswith(",") else ("", tail)
    row = tensors_of(f'{{"instances": {value}{inside}}}{after}', x=dtype)
    named = tensors_of(f'{{"inputs": {{"x": {value}}}{inside}}}{after}', x=dtype)
    bare = tensors_of(f'{{"inputs": {value}{inside}}}{after}', x=dtype)
    for array in (row["x"], named["x"], bare["x"]):
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('["foo", "\\u00e9"]', [b"foo", b"\xc3\xa9"]),
        ('[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ"}]', [b"hello", b"world"]),
        ('[[{"b64": "aGVs\\nbG8="}], ["x"]]', [[b"hello"], [b"x"]]),
        ('["a\\u0000b", ""]', [b"a\0b", b""]),
    ],
)
def test_strings(value: str, expected: Any) -> None:
    for body in (f'{{"instances": {value}}}', f'{{"inputs": {value}}}', f'{{"inputs": {{"x": {value}}}}}'):
        assert tensors_of(body, x=STRING)["x"].tolist() == expected


def test_bytes_that_are_not_utf8_pass_unchanged() -> None:
    assert tensors_of(b'{"inputs": ["\xff\xfe", "\xc3\xa9"]}', x=STRING)["x"].tolist() == [b"\xff\xfe", b"\xc3\xa9"]


def test_a_bare_scalar_has_rank_0() -> None:
    assert tensors_of('{"inputs": 1.5}', x=FLOAT)["x"].shape == ()
    assert tensors_of('{"inputs": {"b64": "aGVsbG8="}}', x=STRING)["x"].item() == b"hello"


@pytest.mark.parametrize(
    ("value", "dtype", "error"),
    [
        ("[1, null]", FLOAT, "JSON Value: null Type: Null is not of expected type: float"),
        ("[1, true]", FLOAT, "JSON Value: true Type: True is not of expected type: float"),
        ("[1, false]", INT32, "JSON Value: false Type: False is not of expected type: int32"),
        ('["1"]', DOUBLE, 'JSON Value: "1" Type: String is not of expected type: double'),
        ("[1, 2.0]", INT32, "JSON Value: 2.0 Type: Number is not of expected type: int32"),
        ("[1e2]", INT64, "JSON Value: 100.0 Type: Number is not of expected type: int64"),
        ("[2147483648]", INT8, "JSON Value: 2147483648 Type: Number is not of expected type: int8"),
        ("[9223372036854775808]", INT64, "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64"),
        ("[-1]", UINT32, "JSON Value: -1 Type: Number is not of expected type: uint32"),
        ("[4294967296]", UINT32, "JSON Value: 4294967296 Type: Number is not of expected type: uint32"),
        ("[0, -1]", UINT64, "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ("[1]", BOOL, "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("[true, 0]", BOOL, "JSON Value: 0 Type: Number is not of expected type: bool"),
        ("[1]", STRING, "JSON Value: 1 Type: Number is not of expected type: string"),
        ('[[1, {"a": 1}]]', FLOAT, 'JSON Value: {\n    "a": 1\n} Type: Object is not of expected type: float'),
        (
            '[{"b64": "aGVsbG8="}]',
            HALF,
            'JSON Value: {\n    "b64": "aGVsbG8="\n} Type: Object is not of expected type: half',
        ),
        ('[["x", {"c": 1}]]', STRING, 'JSON Value: {\n    "c": 1\n} not formatted correctly for base64 data'),
        ('["x", {"b64": "a*=="}]', STRING, "Unable to base64 decode"),
        ('["x", {"b64": "aGVsbG8=="}]', STRING, "Unable to base64 decode"),
        ('["x", {"b64": "aGVsb"}]', STRING, "Unable to base64 decode"),
        ("[1.5]", HALF, "Conversion of JSON Value: 1.5 to type: half"),
        ("[1]", BFLOAT16, "Conversion of JSON Value: 1 to type: bfloat16"),
        ("[1]", UINT16, "Conversion of JSON Value: 1 to type: uint16"),
        ("[1]", COMPLEX64, "Conversion of JSON Value: 1 to type: complex64"),
        ("[[1, 2], [3]]", FLOAT, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("[1, [2]]", FLOAT, "Encountered list at unexpected level: 1 expected < 1"),
        ("[[1], 2]", FLOAT, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ],
)
def test_columnar_value_errors(value: str, dtype: int, error: str) -> None:
    kind = Unimplemented if error.startswith("Conversion") else InvalidArgument
    with pytest.raises(kind) as caught:
        tensors_of(f'{{"inputs": {value}}}', x=dtype)
    assert caught.value.message == error


# -- layouts -----------------------------------------------------------------------------------------------------


def test_layouts() -> None:
    assert rest_json.parse(b'{"instances":[1]}').tensors({"x": FLOAT})[1] is Layout.ROW
    assert rest_json.parse(b'{"inputs":[1]}').tensors({"x": FLOAT})[1] is Layout.COLUMNAR


def test_named_rows() -> None:
    body = """{"instances": [
        {"i": [[1,2],[3,4]], "s": ["foo"], "f": NaN, "b": true},
        {"b": false, "f": 2, "s": [{"b64": "aGVsbG8="}], "i": [[5,6],[7,8]]}]}"""
    arrays = tensors_of(body, i=INT32, s=STRING, f=FLOAT, b=BOOL)
    assert arrays["i"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert arrays["s"].tolist() == [[b"foo"], [b"hello"]]
    np.testing.assert_array_equal(arrays["f"], np.array([np.nan, 2], "f4"))
    assert arrays["b"].tolist() == [True, False]


def test_a_row_of_bare_b64_objects_fills_only_the_first_of_several_inputs() -> None:
    assert list(tensors_of('{"instances": [{"b64": "eA=="}]}', a=STRING, b=STRING)) == ["a"]


def test_columns_take_what_they_need() -> None:
    arrays = tensors_of('{"inputs": {"a": [[1]], "b": {"b64": "eA=="}, "extra": null}}', a=FLOAT, b=STRING)
    assert arrays["a"].tolist() == [[1.0]]
    assert arrays["b"].item() == b"x"


FAILED = "Failed to process element: "


@pytest.mark.parametrize(
    ("body", "inputs", "error"),
    [
        (
            '{"instances": [1]}',
            {"a": FLOAT, "b": FLOAT},
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        (
            '{"instances": [{"a":1}, [1]]}',
            {"a": FLOAT},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            '{"instances": [{"a":1}, {"b64":"eA=="}]}',
            {"a": FLOAT},
            "Expecting object but got list at item 1 of input list",
        ),
        ('{"instances": [1, {"a":1}]}', {"a": FLOAT}, "Expecting value/list but got object at item 1 of input list"),
        (
            '{"instances": [[1,2],[3]]}',
            {"a": INT32},
            FAILED + "1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1",
        ),
        (
            '{"instances": [[1,2],[[3],[4]]]}',
            {"a": INT32},
            FAILED + "1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2] but got: [2,1]",
        ),
        (
            '{"instances": [1,[1]]}',
            {"a": INT32},
            FAILED + "1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]",
        ),
        (
            '{"instances": [[1,2],["a"]]}',
            {"a": INT32},
            FAILED + "1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: int32',
        ),
        (
            '{"instances": [[1.5]]}',
            {"a": HALF},
            FAILED + "0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: half",
        ),
        (
            '{"instances": [{"a":1,"c":2}]}',
            {"a": FLOAT, "b": FLOAT},
            FAILED + "0 key: c of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: c",
        ),
        (
            '{"instances": [{"a":1,"b":[1,2]},{"a":1,"b":[1]}]}',
            {"a": FLOAT, "b": FLOAT},
            FAILED + "1 key: b of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1",
        ),
        (
            '{"instances": [{"b":1}]}',
            {"b": FLOAT, "a": FLOAT},
            FAILED + "0 of 'instances' list. JSON object: {\n    \"b\": 1\n} keys must be equal to: a,b",
        ),
        (
            '{"inputs": [1]}',
            {"a": FLOAT, "b": FLOAT},
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ('{"inputs": {"a": 1}}', {"a": FLOAT, "b": FLOAT}, "Missing named input: b in 'inputs' object."),
    ],
)
def test_layout_errors(body: str, inputs: dict[str, int], error: str) -> None:
    assert error_of(body, **inputs) == error


# -- there and back ----------------------------------------------------------------------------------------------

CARRIED = [FLOAT, DOUBLE, INT8, INT16, INT32, INT64, UINT8, UINT32, UINT64, BOOL]


@pytest.mark.parametrize("enum", CARRIED, ids=lambda enum: tensors.DTYPES[enum].name)
@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple), data=st.data(), rows=st.booleans())
@settings(max_examples=12, deadline=None)
def test_tensor_to_json_to_tensor(enum: int, shape: tuple[int, ...], data: st.DataObject, rows: bool) -> None:
    dtype = tensors.DTYPES[enum].numpy
    size = math.prod(shape) * dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(bytes(b & 1 for b in raw) if enum == BOOL else raw, dtype).reshape(shape)
    layout = Layout.ROW if rows else Layout.COLUMNAR
    text = rest_json.reply({"y": (enum, array)}, layout)
    text = text.replace(b'"predictions"', b'"instances"').replace(b'"outputs"', b'"inputs"')
    np.testing.assert_array_equal(tensors_of(text, x=enum)["x"], array, strict=True)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.sampled_from(["y", "y_bytes"]))
@settings(max_examples=30, deadline=None)
def test_strings_to_json_to_strings(values: list[bytes], name: str) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    text = rest_json.reply({name: (STRING, array)}, Layout.COLUMNAR).replace(b'"outputs"', b'"inputs"')
    assert tensors_of(text, x=STRING)["x"].tolist() == values


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([FLOAT, INT64, BOOL, STRING]), min_size=2),
    st.integers(1, 3),
    st.sampled_from(Layout),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_named_tensors_to_json_to_tensors(
    inputs: dict[str, int], batch: int, layout: Layout, data: st.DataObject
) -> None:
    """Several inputs of different dtypes and shapes, which have the batch in common."""
    elements = {FLOAT: st.floats(width=32), INT64: st.integers(-(2**63), 2**63 - 1), BOOL: st.booleans()}
    outputs = {}
    for name, enum in inputs.items():
        inner = data.draw(st.lists(st.integers(1, 2), max_size=2))
        count = batch * math.prod(inner)
        drawn = data.draw(st.lists(elements.get(enum, st.binary(max_size=3)), min_size=count, max_size=count))
        array = np.empty(count, tensors.DTYPES[enum].numpy)
        array[:] = drawn
        outputs[name] = (enum, array.reshape(batch, *inner))
    text = rest_json.reply(outputs, layout)
    text = text.replace(b'"predictions"', b'"instances"', 1).replace(b'"outputs"', b'"inputs"', 1)
    found = tensors_of(text, **inputs)
    for name, (_, array) in outputs.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# -- many rows, and each by itself -------------------------------------------------------------------------------

VALUES = {
    FLOAT: st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9), st.just(True)),
    INT64: st.one_of(st.integers(-9, 9), st.integers(2**63 - 2, 2**63)),
    BOOL: st.one_of(st.booleans(), st.booleans(), st.just(0)),
    STRING: st.sampled_from(["", "\u00e9", {"b64": "eA=="}, {"b64": "?"}, {"b64": "eA==", "c": 1}, ["x"], None, 1]),
}


@given(
    st.dictionaries(st.sampled_from(["a", "b", "b64"]), st.sampled_from(list(VALUES)), min_size=1),
    st.integers(1, 4),
    st.sampled_from(["named", "rows", "columns"]),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_columns_that_are_read_at_once_are_read_like_value_by_value(
    inputs: dict[str, int], count: int, layout: str, data: st.DataObject
) -> None:
    if layout != "named":
        inputs = dict([next(iter(inputs.items()))])
    columns = {name: data.draw(st.lists(VALUES[enum], min_size=count, max_size=count)) for name, enum in inputs.items()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    content = {"named": rows, "rows": next(iter(columns.values())), "columns": columns}[layout]
    body = json.dumps({"inputs" if layout == "columns" else "instances": content})

    def outcome() -> Any:
        try:
            return {name: (array.dtype, array.tolist()) for name, array in tensors_of(body, **inputs).items()}
        except PoolError as error:
            return type(error), error.message

    at_once = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "regular", lambda *_: None)
        assert outcome() == at_once
