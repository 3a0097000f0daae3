"""The part of the table of REST cases that is about classify and regress: JSON to tf.Examples, and the reply."""

from typing import Any

from tests.e2e.rest_case import CLASSIFY, CLASSIFY_PATH, EXAMPLES, LIST, REGRESS, REGRESS_PATH, RestCase


def examples() -> list[RestCase]:
    """Which features are taken and refused, and both replies."""

    def classify(rest: str, path: str = CLASSIFY_PATH) -> tuple[str, str]:
        return path, f'{{"signature_name": "classify_x_to_y", {rest}}}'

    def regress(rest: str) -> tuple[str, str]:
        return REGRESS_PATH, f'{{"signature_name": "regress_x_to_y", {rest}}}'

    good: list[tuple[str, tuple[str, str], Any, str]] = [
        ("classify", classify('"examples": [{"x": 1.0}]'), {"results": [[["", 2.5]]]}, CLASSIFY),
        (
            "classify two",
            classify('"examples": [{"x": 1.0}, {"x": 4.0}]'),
            {"results": [[["", 2.5]], [["", 4.0]]]},
            CLASSIFY,
        ),
        ("regress", regress('"examples": [{"x": 1.0}]'), {"results": [2.5]}, REGRESS),
        ("regress two", regress('"examples": [{"x": 1.0}, {"x": 4.0}]'), {"results": [2.5, 4.0]}, REGRESS),
        ("context", regress('"context": {"x": 6.0}, "examples": [{}, {"x": 1.0}]'), {"results": [5.0, 2.5]}, LIST),
        ("a feature as a list", regress('"examples": [{"x": [1.0]}]'), {"results": [2.5]}, EXAMPLES),
        (
            "another feature beside",
            regress('"examples": [{"x": 1.0, "n": [1, 2], "s": "a"}]'),
            {"results": [2.5]},
            EXAMPLES,
        ),
        ("bytes beside", regress('"examples": [{"x": 1.0, "s": {"b64": "AAE="}}]'), {"results": [2.5]}, EXAMPLES),
    ]
    cases = [RestCase(f"examples: {id_}", *call, 200, wanted, source) for id_, call, wanted, source in good]
    bad: list[tuple[str, tuple[str, str], str, str]] = [
        ("no examples", classify('"a": 1'), "JSON Value: {...", LIST),
        ("examples no list", classify('"examples": {}'), "JSON Value: {...", LIST),
        ("empty examples", classify('"examples": []'), "JSON Value: {...", LIST),
        ("example no object", classify('"examples": [1]'), "Example must be JSON object but got JSON Number...", LIST),
        (
            "context no object",
            classify('"context": [], "examples": [{"x": 1.0}]'),
            "Example must be JSON object but got JSON Array...",
            LIST,
        ),
        (
            "feature null",
            classify('"examples": [{"x": null}]'),
            "Feature: x has element with unexpected JSON type: Null...",
            EXAMPLES,
        ),
        (
            "feature object",
            classify('"examples": [{"x": {"y": 1}}]'),
            "Feature: x has element with unexpected JSON type: Object...",
            EXAMPLES,
        ),
        (
            "nested list",
            classify('"examples": [{"x": [[1.0]]}]'),
            "Feature: x has element with unexpected JSON type: Array...",
            EXAMPLES,
        ),
        (
            "mixed types",
            classify('"examples": [{"x": [1.0, "a"]}]'),
            "Unexpected element type in feature: x expecting type: float...",
            EXAMPLES,
        ),
        (
            "uint64",
            classify('"examples": [{"x": 18446744073709551615}]'),
            "Feature: x has uint64_t element. Only int64_t is supported....",
            EXAMPLES,
        ),
        (
            "whole number for a float",
            classify('"examples": [{"x": 1}]'),
            "Name: <unknown>, Key: x, Index: 0...",
            CLASSIFY,
        ),
        ("missing feature", classify('"examples": [{"z": 1.0}]'), "Name: <unknown>, Feature: x...", CLASSIFY),
        (
            "unknown signature",
            (CLASSIFY_PATH, '{"signature_name": "no", "examples": [{"x": 1.0}]}'),
            "No signature was found with the name: no",
            CLASSIFY,
        ),
        (
            "regress with a classify signature",
            (REGRESS_PATH, '{"signature_name": "classify_x_to_y", "examples": [{}]}'),
            "No regression outputs found in SignatureDef: ...",
            REGRESS,
        ),
        ("not JSON", (CLASSIFY_PATH, "{"), "JSON Parse error: Missing a name for object member. at offset: 1", LIST),
    ]
    return cases + [RestCase(f"examples: {id_}", *call, 400, text, source) for id_, call, text, source in bad]
