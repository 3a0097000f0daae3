"""The JSON of a request: what RapidJSON takes and what it refuses, with TensorFlow Serving's texts and offsets."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker import json_parser, rest_json


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "The document is empty"),
        ("  \n", "The document is empty. at offset: 3"),
        ("]", "The document is empty. at offset: 0"),
        ("\0{}", "The document is empty. at offset: 0"),
        ("nul", "Invalid value. at offset: 3"),
        ("[nulx]", "Invalid value. at offset: 4"),
        ("[1,]", "Invalid value. at offset: 3"),
        ("[", "Invalid value. at offset: 1"),
        ('{"a":}', "Invalid value. at offset: 5"),
        ("[-]", "Invalid value. at offset: 2"),
        ("[+1]", "Invalid value. at offset: 1"),
        ("[.5]", "Invalid value. at offset: 1"),
        ("[-Infi]", "Invalid value. at offset: 6"),
        ("[NaX]", "Invalid value. at offset: 3"),
        ("[nan]", "Invalid value. at offset: 2"),
        ("['a']", "Invalid value. at offset: 1"),
        ("// c\n{}", "Invalid value. at offset: 0"),
        ("{,}", "Missing a name for object member. at offset: 1"),
        ('{"a":1,}', "Missing a name for object member. at offset: 7"),
        ("{a:1}", "Missing a name for object member. at offset: 1"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"a":1 "b":2}', "Missing a comma or '}' after an object member. at offset: 7"),
        ('{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        ("[1 2]", "Missing a comma or ']' after an array element. at offset: 3"),
        ("[01]", "Missing a comma or ']' after an array element. at offset: 2"),
        ("[1}", "Missing a comma or ']' after an array element. at offset: 2"),
        ('["a', "Missing a closing quotation mark in string. at offset: 3"),
        ('["a\tb"]', "Invalid encoding in string. at offset: 3"),
        ('["\\x"]', "Invalid escape character in string. at offset: 2"),
        ('["a\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 3"),
        ('["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        ('["\\udc00"]', "The surrogate pair in string is invalid. at offset: 2"),
        ('["\\ud800\\u0041"]', "The surrogate pair in string is invalid. at offset: 2"),
        ("[1.]", "Miss fraction part in number. at offset: 3"),
        ("[1e+]", "Miss exponent in number. at offset: 4"),
        ("[0, -1e309]", "Number too big to be stored in double. at offset: 4"),
        (f"[1{'0' * 400}]", "Number too big to be stored in double. at offset: 1"),
        ("\ufeff[1 2]", "Missing a comma or ']' after an array element. at offset: 6"),
    ],
)
def test_parse_errors(body: str, error: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        rest_json.parse(body.encode())
    assert caught.value.message == f"JSON Parse error: {error}"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("\ufeff {} trailing", {}),
        ('{"a":1,"a":2}', {"a": 1}),
        ('{"a":1,"\\u0061":2}', {"a": 1}),
        ('{"s":"x","l":[{"b":1,"b":2,"c":{}}]}', {"s": "x", "l": [{"b": 1, "c": {}}]}),
        ('{"a":{"k":"{"},"b":{"k":"}"}}', {"a": {"k": "{"}, "b": {"k": "}"}}),
        ("[Inf, -Infinity, -Inf,Infinity]", [math.inf, -math.inf, -math.inf, math.inf]),
        ("[-0, 1E2, 1.5e-3, 2]x", [0, 100.0, 0.0015, 2]),
        (f"[{2**64 - 1},{2**64},{-(2**63)},{-(2**63) - 1}] x", [2**64 - 1, 2.0**64, -(2**63), -(2.0**63)]),
        ('"\\u00e9\\ud83d\\ude00\\"\\\\\\/\\b\\f\\n\\r\\t" x', '\u00e9\U0001f600"\\/\b\f\n\r\t'),
        ("[null, true, false, [], {}, [[]]] x", [None, True, False, [], {}, [[]]]),
    ],
)
def test_parser_tolerates(body: str, value: Any) -> None:
    parsed = json_parser.parse(body.encode())
    assert parsed == value
    assert [type(item) for item in parsed] == [type(item) for item in value]


any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(any_json, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=60, deadline=None)
def test_the_exact_way_reads_what_json_writes(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert json_parser.parse(text + b" x") == value


@pytest.mark.parametrize("body", [b'{"a": [1.0, "x"]}', b'{"a": NaN, "a": 1}', b'{"a": 1} more'])
def test_a_big_body_is_a_memoryview(body: bytes) -> None:
    assert json.dumps(json_parser.parse(memoryview(body))) == json.dumps(json_parser.parse(body))
