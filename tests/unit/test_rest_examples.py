"""REST classify and regress bodies: which tf.Examples they make, TF Serving's texts for the others, and the replies."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker import rest_examples
from tensorflow_serving.apis import classification_pb2, regression_pb2

INF = math.inf


def filled(body: str | bytes) -> Any:
    asked = classification_pb2.ClassificationRequest()
    rest_examples.fill_request(asked, body if isinstance(body, bytes) else body.encode())
    return asked


def refusal(body: str | bytes) -> str:
    with pytest.raises(InvalidArgument) as caught:
        filled(body)
    return caught.value.message


def features(example: Any) -> dict[str, tuple[str | None, list[Any]]]:
    """By name the kind and the values."""
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = (kind, list(getattr(feature, kind).value) if kind else [])
    return found


@pytest.mark.parametrize(
    ("value", "kind", "values"),
    [
        ("2", "int64_list", [2]),
        ("[1, -9223372036854775808, 9223372036854775807]", "int64_list", [1, -(2**63), 2**63 - 1]),
        ("true", "int64_list", [1]),
        ("[false, 7]", "int64_list", [0, 7]),
        ("2.0", "float_list", [2.0]),
        ("[1e3, NaN, -Infinity, 1e300]", "float_list", [1000.0, math.nan, -INF, INF]),
        ("18446744073709551616", "float_list", [2.0**64]),
        ('"a\\u00e9"', "bytes_list", ["a\u00e9".encode()]),
        ('[{"b64": "/w"}, "b"]', "bytes_list", [b"\xff", b"b"]),
        ("[]", None, []),
    ],
)
def test_a_value_makes_a_feature(value: str, kind: str | None, values: list[Any]) -> None:
    (example,) = filled(f'{{"examples": [{{"x": {value}}}]}}').input.example_list.examples
    found_kind, found = features(example)["x"]
    assert found_kind == kind
    np.testing.assert_equal(found, values)


def test_a_string_that_is_not_utf8() -> None:
    (example,) = filled(b'{"examples": [{"x": "\xff"}]}').input.example_list.examples
    assert features(example) == {"x": ("bytes_list", [b"\xff"])}


def test_examples_without_context() -> None:
    asked = filled('{"signature_name": "s", "examples": [{"a": 1, "b": [2.5]}, {}], "unknown": 1}')
    assert asked.model_spec.signature_name == "s"
    assert asked.input.WhichOneof("kind") == "example_list"
    first, second = asked.input.example_list.examples
    assert features(first) == {"a": ("int64_list", [1]), "b": ("float_list", [2.5])}
    assert features(second) == {}


def test_examples_with_context() -> None:
    listed = filled('{"context": {"c": "d"}, "examples": [{"a": 1}]}').input.example_list_with_context
    assert features(listed.context) == {"c": ("bytes_list", [b"d"])}
    assert [features(example) for example in listed.examples] == [{"a": ("int64_list", [1])}]
    assert filled('{"context": {}, "examples": [{}]}').input.WhichOneof("kind") == "example_list_with_context"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("[1]", "JSON Value: [\n    1\n] Is not object"),
        (
            '{"signature_name": 5}',
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            "{}",
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            '{"examples": {}}',
            "JSON Value: {\n    \"examples\": {}\n} Expecting 'examples' value to be an list/array",
        ),
        ('{"examples": []}', "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}, null]}', "Example must be JSON object but got JSON Null"),
        ('{"context": [], "examples": []}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": {"b64": "YQ", "c": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"examples": [{"x": {"b64": "!"}}]}', "Unable to base64 decode"),
        ('{"examples": [{"x": [1, 1.5]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": [1.5, true]}]}', "Unexpected element type in feature: x expecting type: float"),
        ('{"examples": [{"x": ["a", 1]}]}', "Unexpected element type in feature: x expecting type: bytes"),
        (
            '{"examples": [{"x": 9223372036854775808}]}',
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
        (b'{"examples": [{"\xff": 1}]}', "Feature: \ufffd has a name that is not UTF-8"),
    ],
)
def test_refusals(body: str | bytes, text: str) -> None:
    assert refusal(body) == text


def classifications(*rows: list[tuple[str, float]]) -> Any:
    made = classification_pb2.ClassificationResult()
    for row in rows:
        classes = made.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)
    return made


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            classifications([("a", 0.5), ('"\u00e9', 3)], [("c", 0.2), ("", math.nan)]),
            '{\n    "results": [[["a", 0.5], ["\\"\u00e9", 3.0]], [["c", 0.2], ["", NaN]]\n    ]\n}',
        ),
        (classifications([]), '{\n    "results": [[]\n    ]\n}'),
    ],
)
def test_classification_reply(result: Any, text: str) -> None:
    assert rest_examples.classification_json(result).decode() == text


def test_regression_reply() -> None:
    result = regression_pb2.RegressionResult()
    for value in (2.5, 3, 1 / 3, 9e6, -INF):
        result.regressions.add().value = value
    text = rest_examples.regression_json(result).decode()
    assert text == '{\n    "results": [2.5, 3.0, 0.333333343, 9e+06, -Infinity]\n}'


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3).map(lambda v: ("int64_list", v)),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3).map(lambda v: ("float_list", v)),
    st.lists(st.binary(max_size=5), min_size=1, max_size=3).map(lambda v: ("bytes_list", v)),
)


@given(st.lists(st.dictionaries(names, values, max_size=3), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_examples_to_json_to_examples(wanted: list[dict[str, tuple[str, list[Any]]]]) -> None:
    def written(value: Any) -> Any:
        return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    examples = [{name: [written(v) for v in listed] for name, (_, listed) in each.items()} for each in wanted]
    found = filled(json.dumps({"examples": examples})).input.example_list.examples
    assert [features(example) for example in found] == wanted
