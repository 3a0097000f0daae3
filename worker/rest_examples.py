"""The bodies of REST classify and regress calls: JSON to tf.Examples, and their results to JSON.

Owns which JSON value makes which kind of feature, and the error texts (json_tensor.cc
FillClassifyRegressRequestFromJson), and the text of the replies with its whitespace (MakeJsonFromClassificationResult,
MakeJsonFromRegressionResult). It knows nothing of signatures, models or HTTP. Pure; any thread.
"""

from typing import Any

import numpy as np

from modelpool.supervisor.wire.status import InvalidArgument

from . import json_body, json_decimals, json_text

_INT64_MAX = 2**63 - 1
# The fields of a Feature by the word for them in error texts.
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}

# -- request -----------------------------------------------------------------------------------------------------


def fill_request(asked: Any, body: bytes) -> None:
    """Fill a ClassificationRequest or RegressionRequest from a REST body. Raises InvalidArgument."""
    signature_name, document = json_body.parse(body)
    try:
        asked.model_spec.signature_name = signature_name
    except ValueError as error:
        readable = json_text.readable(signature_name)
        raise InvalidArgument(f"No signature was found with the name: {readable}") from error
    target = asked.input.example_list
    if "context" in document:
        target = asked.input.example_list_with_context
        target.context.SetInParent()
        _fill_example(target.context, document["context"])
    for item in _listed_examples(document):
        _fill_example(target.examples.add(), item)


def _listed_examples(document: dict[str, Any]) -> list[Any]:
    if "examples" not in document:
        raise json_body.format_error(document, "When method is classify, key 'examples' is expected and was not found")
    listed = document["examples"]
    if not isinstance(listed, list):
        raise json_body.format_error(document, "Expecting 'examples' value to be an list/array")
    if not listed:
        raise json_body.format_error(document, "'examples' value is an empty array")
    return listed


def _fill_example(example: Any, value: Any) -> None:
    """json_tensor.cc MakeExampleFromJsonObject. An empty list makes a feature without values."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"Example must be JSON object but got JSON {json_text.type_name(value)}")
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except ValueError as error:
            raise InvalidArgument(f"Feature: {json_text.readable(name)} has a name that is not UTF-8") from error
        for item in content if isinstance(content, list) else (content,):
            _add_value(feature, name, item)


def _add_value(feature: Any, name: str, value: Any) -> None:
    """json_tensor.cc AddValueToFeature: the first value decides on the feature's kind."""
    if isinstance(value, str):
        _list_of(feature, name, "bytes_list").append(json_text.raw_bytes(value))
    elif isinstance(value, float):
        _list_of(feature, name, "float_list").append(_as_float32(value))
    elif isinstance(value, int):
        _list_of(feature, name, "int64_list").append(_as_int64(name, value))
    elif json_body.is_base64(value):
        _list_of(feature, name, "bytes_list").append(json_body.decode_base64(value))
    else:
        raise InvalidArgument(f"Feature: {name} has element with unexpected JSON type: {json_text.type_name(value)}")


def _list_of(feature: Any, name: str, kind: str) -> Any:
    """The values of the feature, which must be of this kind or still of none."""
    found = feature.WhichOneof("kind")
    if found not in (None, kind):
        raise InvalidArgument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[found]}")
    return getattr(feature, kind).value


def _as_float32(value: float) -> float:
    """As C converts a double: what is too large becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


def _as_int64(name: str, value: int) -> int:
    """A boolean, too, is a whole number here."""
    if value > _INT64_MAX:
        raise InvalidArgument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    return int(value)


# -- reply -------------------------------------------------------------------------------------------------------


def classification_json(result: Any) -> bytes:
    """`results`: for each example a list of [label, score], on one line but for the outer bracket."""
    rows = []
    for row in result.classifications:
        scores = json_decimals.listed(np.array([each.score for each in row.classes], np.float32))
        pairs = zip(row.classes, scores, strict=True)
        rows.append(f"[{', '.join(f'[{json_text.quoted(each.label)}, {score}]' for each, score in pairs)}]")
    return json_text.raw_bytes('{\n    "results": [' + ", ".join(rows) + "\n    ]\n}")


def regression_json(result: Any) -> bytes:
    """`results`: a number for each example, on one line."""
    numbers = json_decimals.listed(np.array([each.value for each in result.regressions], np.float32))
    return json_text.raw_bytes('{\n    "results": [' + ", ".join(numbers) + "]\n}")
