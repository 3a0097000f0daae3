"""The part of the table of REST cases that is about predict: JSON to tensors, and tensors to the reply."""

import json
from collections.abc import Callable
from typing import Any

from tests.e2e.rest_case import (
    COLUMN_REPLY,
    COLUMNS,
    DECIMAL,
    DENSE_SHAPE,
    DTYPES,
    FILL,
    HALF,
    JSON,
    PREDICT,
    ROW_REPLY,
    ROWS,
    SUM,
    TWISTED,
    VALUE,
    WRITE,
    RestCase,
)


def parsing() -> list[RestCase]:
    """What is no JSON to TF Serving, and what is."""
    parse = JSON + "ParseJson"
    offset = "JSON Parse error: {} at offset: {}"
    bad = {
        "empty body": ("", "JSON Parse error: The document is empty"),
        "blank body": ("  ", offset.format("The document is empty.", 2)),
        "cut object": ("{", offset.format("Missing a name for object member.", 1)),
        "no colon": ('{"a" 1}', offset.format("Missing a colon after a name of object member.", 5)),
        "no comma in object": ('{"a": 1 "b": 2}', offset.format("Missing a comma or '}' after an object member.", 8)),
        "no comma in a list": ("[1 2]", offset.format("Missing a comma or ']' after an array element.", 3)),
        "trailing comma": ('{"instances": [1.0,]}', offset.format("Invalid value.", 19)),
        "single quotes": ("{'instances': [1.0]}", offset.format("Missing a name for object member.", 1)),
        "comment": ('{/**/"instances": [1.0]}', offset.format("Missing a name for object member.", 1)),
        "number too big": ('{"instances": [1e400]}', "JSON Parse error: Number too big to be stored in double...."),
        "leading zero": ('{"instances": [01]}', "JSON Parse error: Missing a comma or ']' after an array element...."),
        "bare point": ('{"instances": [1.]}', "JSON Parse error: Miss fraction part in number...."),
        "bare exponent": ('{"instances": [1e]}', "JSON Parse error: Miss exponent in number...."),
        "lone surrogate": ('{"a": "\\ud800"}', "JSON Parse error: The surrogate pair in string is invalid...."),
        "bad escape": ('{"a": "\\x"}', "JSON Parse error: Invalid escape character in string...."),
        "bad hex": ('{"a": "\\u00zz"}', "JSON Parse error: Incorrect hex digit after \\u escape in string...."),
        "open string": ('{"a": "b', "JSON Parse error: Missing a closing quotation mark in string...."),
    }
    cases = [RestCase(f"parse: {id_}", HALF, body, 400, text, parse) for id_, (body, text) in bad.items()]
    good = {
        "byte order mark": ('\ufeff{"instances": [1.0]}', [2.5]),
        "text after the object": ('{"instances": [1.0]} and more', [2.5]),
        "first of two equal keys": ('{"instances": [1.0], "instances": [2.0]}', [2.5]),
        "unknown keys": ('{"instances": [1.0], "other": {"a": [null]}}', [2.5]),
        "white space": ('\n\t {"instances"\n:\r[ 1.0 ]\n}', [2.5]),
        "whole numbers for floats": ('{"instances": [1, -2]}', [2.5, 1.0]),
        "exponents": ('{"instances": [1e0, 20E-1]}', [2.5, 3.0]),
        "default signature": ('{"signature_name": "", "instances": [1.0]}', [2.5]),
        "escaped key": ('{"\\u0069nstances": [1.0]}', [2.5]),
    }
    cases += [
        RestCase(f"parse: {id_}", HALF, body, 200, {"predictions": wanted}, parse)
        for id_, (body, wanted) in good.items()
    ]
    return cases


def layouts() -> list[RestCase]:
    """Rows and columns: which are refused, and which tensors the others make."""
    prefix = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"
    plain = "{} is a plain {}, but expecting {} as multiple input tensors required as per tensorinfo_map"
    refused: list[tuple[str, str, str, str, str]] = [
        ("neither key", HALF, "{}", "Missing 'inputs' or 'instances' key", FILL),
        (
            "signature no string",
            HALF,
            '{"signature_name": [], "instances": [1]}',
            "JSON Value: {...",
            JSON + "FillSignature",
        ),
        ("no object", HALF, "1", "JSON Value: 1 Is not object", FILL),
        ("null", HALF, "null", "JSON Value: null Is not object", FILL),
        ("instances null", HALF, '{"instances": null}', "JSON Value: {...", FILL),
        (
            "plain rows for many",
            SUM,
            '{"instances": [1.0]}',
            plain.format("instances", "list", "list of objects"),
            ROWS,
        ),
        (
            "plain columns for many",
            SUM,
            '{"inputs": [1.0]}',
            plain.format("inputs", "value/list", "an object"),
            COLUMNS,
        ),
        ("column missing", SUM, '{"inputs": {"a": [1.0]}}', "Missing named input: b in 'inputs' object.", COLUMNS),
        (
            "list among objects",
            SUM,
            '{"instances": [{"a": 1, "b": 2}, [1]]}',
            "Expecting object but got list at item 1 of input list",
            ROWS,
        ),
        (
            "object among values",
            HALF,
            '{"instances": [1.0, {"x": 2.0}]}',
            "Expecting value/list but got object at item 1 of input list",
            ROWS,
        ),
        (
            "row of another size",
            HALF,
            '{"instances": [[1.0, 2.0], [1.0]]}',
            prefix.format(1, "Expecting tensor size: 2 but got: 1"),
            ROWS,
        ),
        (
            "row of another shape",
            HALF,
            '{"instances": [[1.0, 2.0], [[1.0], [2.0]]]}',
            prefix.format(1, "Expecting shape [2] but got: [2,1]"),
            ROWS,
        ),
        (
            "ragged",
            HALF,
            '{"inputs": [[1.0, 2.0], [1.0]]}',
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            DENSE_SHAPE,
        ),
        ("too deep", HALF, '{"inputs": [1.0, [2.0]]}', "Encountered list at unexpected level: 1 expected < 1", VALUE),
        (
            "not deep enough",
            HALF,
            '{"inputs": [[1.0], 2.0]}',
            "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
            VALUE,
        ),
        (
            "unknown signature",
            HALF,
            '{"signature_name": "no", "instances": [1]}',
            'Serving signature name: "no" not found in signature def',
            PREDICT,
        ),
        (
            "no serving_default",
            "/v1/models/demo:predict",
            '{"instances": ["a"]}',
            'Serving signature name: "serving_default" not found in signature def',
            PREDICT,
        ),
        (
            "an input with a default missing in a row",
            TWISTED,
            '{"signature_name": "defaults", "instances": [{"x": 1}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {...",
            ROWS,
        ),
    ]
    cases = [RestCase(f"layout: {id_}", *rest[:2], 400, *rest[2:]) for id_, *rest in refused]
    good: list[tuple[str, str, str, Any, str]] = [
        ("rows", HALF, '{"instances": [1.0, 2.0, 5.0]}', {"predictions": [2.5, 3.0, 4.5]}, ROWS),
        ("rows of lists", HALF, '{"instances": [[1.0], [2.0]]}', {"predictions": [[2.5], [3.0]]}, ROWS),
        ("rows of named values", HALF, '{"instances": [{"x": 1.0}, {"x": 2.0}]}', {"predictions": [2.5, 3.0]}, ROWS),
        (
            "rows for many inputs",
            SUM,
            '{"instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}',
            {"predictions": [{"product": 2.0, "total": 3.0}, {"product": 12.0, "total": 7.0}]},
            ROWS,
        ),
        ("a column", HALF, '{"inputs": [1.0, 2.0]}', {"outputs": [2.5, 3.0]}, COLUMNS),
        ("a named column", HALF, '{"inputs": {"x": [1.0]}}', {"outputs": [2.5]}, COLUMNS),
        ("a scalar", HALF, '{"inputs": 1.0}', {"outputs": 2.5}, COLUMNS),
        (
            "columns",
            SUM,
            '{"inputs": {"a": [1, 2], "b": [3, 4]}}',
            {"outputs": {"product": [3.0, 8.0], "total": [4.0, 6.0]}},
            COLUMNS,
        ),
        (
            "extra column ignored",
            SUM,
            '{"inputs": {"a": [1], "b": [3], "c": ["x"]}}',
            {"outputs": {"product": [3.0], "total": [4.0]}},
            COLUMNS,
        ),
        ("an empty list", HALF, '{"inputs": []}', {"outputs": []}, DENSE_SHAPE),
        ("three dimensions", HALF, '{"inputs": [[[1.0], [2.0]]]}', {"outputs": [[[2.5], [3.0]]]}, DENSE_SHAPE),
    ]
    return cases + [RestCase(f"layout: {id_}", *rest[:2], 200, *rest[2:]) for id_, *rest in good]


def big_lists() -> list[RestCase]:
    """Bodies that come as shared memory, and lists and replies that are not read and written number by number."""

    def cube(of: Callable[[int], Any]) -> Any:
        return [[[of((i * 30 + j) * 30 + k) for k in range(30)] for j in range(30)] for i in range(30)]

    def halved(i: int) -> float:
        return i / 8 + 2

    numbers, results = cube(lambda i: i / 4), cube(halved)
    spoilt = cube(lambda i: True if i == 26_999 else i / 4)
    refused = "JSON Value: true Type: True is not of expected type: float"
    row = f"Failed to process element: 29 of 'instances' list. Error: INVALID_ARGUMENT: {refused}"
    named = {"inputs": {"x": [*numbers[:-1], numbers[-1][:-1]]}}
    uneven = "Encountered list at unexpected size: 29 at level: 1 expected size: 30"
    cases: list[tuple[str, Any, int, Any, str]] = [
        ("rows", {"instances": numbers}, 200, {"predictions": results}, ROWS),
        ("named rows", {"instances": [{"x": numbers}]}, 200, {"predictions": [results]}, ROWS),
        ("columns", {"inputs": {"x": numbers}}, 200, {"outputs": results}, COLUMNS),
        ("a boolean in a row", {"instances": spoilt}, 400, row, VALUE),
        ("a boolean in a column", {"inputs": spoilt}, 400, refused, VALUE),
        ("uneven", named, 400, uneven, DENSE_SHAPE),
    ]
    return [RestCase(f"big list: {id_}", HALF, json.dumps(body), *rest) for id_, body, *rest in cases]


def _typed(dtype: str, value: str) -> str:
    return f'{{"signature_name": "{dtype}", "inputs": [{value}]}}'


def values() -> list[RestCase]:
    """What a JSON value may be for each dtype, and how it is written in the reply."""
    wrong = "JSON Value: {} Type: {} is not of expected type: {}"
    refused = [
        ("float32", '"a"', '"a"', "String", "float"),
        ("float32", "null", "null", "Null", "float"),
        ("float32", "true", "true", "True", "float"),
        ("float64", "false", "false", "False", "double"),
        ("int32", "1.5", "1.5", "Number", "int32"),
        ("int32", "1e3", "1000.0", "Number", "int32"),
        ("int32", "2147483648", "2147483648", "Number", "int32"),
        ("int64", "9223372036854775808", "9223372036854775808", "Number", "int64"),
        ("int64", "1.0", "1.0", "Number", "int64"),
        ("uint32", "-1", "-1", "Number", "uint32"),
        ("uint32", "4294967296", "4294967296", "Number", "uint32"),
        ("uint64", "-1", "-1", "Number", "uint64"),
        ("uint8", "2147483648", "2147483648", "Number", "uint8"),
        ("bool", "1", "1", "Number", "bool"),
        ("bool", '"true"', '"true"', "String", "bool"),
        ("string", "1", "1", "Number", "string"),
        ("string", "null", "null", "Null", "string"),
    ]
    cases = [
        RestCase(
            f"value: {value} for {dtype}", DTYPES, _typed(dtype, value), 400, wrong.format(shown, kind, name), VALUE
        )
        for dtype, value, shown, kind, name in refused
    ]
    for dtype, name in (
        ("float16", "half"),
        ("bfloat16", "bfloat16"),
        ("complex64", "complex64"),
        ("uint16", "uint16"),
    ):
        text = f"Conversion of JSON Value: 1 to type: {name}"
        cases.append(RestCase(f"value: columns of {dtype}", DTYPES, _typed(dtype, "1"), 501, text, VALUE))
        rows = _typed(dtype, "1").replace("inputs", "instances")
        text = f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {text}"
        cases.append(RestCase(f"value: rows of {dtype}", DTYPES, rows, 400, text, ROWS))
    accepted = [
        ("float32", "1", "1.0"),
        ("float32", "3.4e39", "Infinity"),
        ("float32", "1e-50", "0.0"),
        ("float32", "NaN", "NaN"),
        ("float32", "-Infinity", "-Infinity"),
        ("float32", "Inf", "Infinity"),
        ("float32", "0.1", "0.1"),
        ("float32", "16777217", "16777216.0"),
        ("float64", "0.1", "0.1"),
        ("float64", "1e300", "1e+300"),
        ("float64", "9000000", "9e+06"),
        ("float64", "123456789.125", "123456789.125"),
        ("int32", "-2147483648", "-2147483648"),
        ("int64", "-9223372036854775808", "-9223372036854775808"),
        ("int64", "9223372036854775807", "9223372036854775807"),
        ("uint64", "18446744073709551615", "18446744073709551615"),
        ("uint32", "4294967295", "4294967295"),
        ("int8", "300", "44"),
        ("uint8", "-1", "255"),
        ("int16", "40000", "-25536"),
        ("bool", "true", "true"),
        ("string", '"\u00e4\u20ac"', '"\u00e4\u20ac"'),
        ("string", '{"b64": "w6Q="}', '"\u00e4"'),
        ("string", '{"b64": "w6Q"}', '"\u00e4"'),
        ("string", '"a\\n\\"\\u0001"', '"a\\n\\"\\u0001"'),
        ("string", '""', '""'),
    ]
    for dtype, value, shown in accepted:
        body = f'{{\n    "outputs": [\n        {shown}\n    ]\n}}'
        source = DECIMAL if dtype.startswith("float") else WRITE
        cases.append(
            RestCase(f"value: {value} as {dtype}", DTYPES, _typed(dtype, value), 200, body, source, exactly=True)
        )
    bad64 = [("!!!", "Unable to base64 decode"), ("a", "Unable to base64 decode")]
    cases += [
        RestCase(f"value: base64 {text}", DTYPES, _typed("string", f'{{"b64": "{text}"}}'), 400, wanted, VALUE)
        for text, wanted in bad64
    ]
    return cases


def replies() -> list[RestCase]:
    """How rows, columns, names and odd values are written."""

    def twisted(signature: str, rest: str) -> str:
        return f'{{"signature_name": "{signature}", {rest}}}'

    pairs = (
        '{\n    "predictions": [\n        {\n            "length": 1,\n            "raw_bytes": {\n'
        '                "b64": "YQ=="\n            },\n            "text": "a"\n        }\n    ]\n}'
    )
    half = "Failed to write JSON value for tensor type: half"
    rank = "Tensor name: y has no shape information "
    uneven = "Tensor name: half has inconsistent batch size: 1 expecting: 2"
    return [
        RestCase(
            "reply: rows on one line",
            HALF,
            '{"instances": [1, 2]}',
            200,
            '{\n    "predictions": [2.5, 3.0\n    ]\n}',
            ROW_REPLY,
            exactly=True,
        ),
        RestCase(
            "reply: column",
            HALF,
            '{"inputs": [1]}',
            200,
            '{\n    "outputs": [\n        2.5\n    ]\n}',
            COLUMN_REPLY,
            exactly=True,
        ),
        RestCase(
            "reply: bare scalar",
            TWISTED,
            twisted("scalar", '"inputs": [1, 2]'),
            200,
            '{\n    "outputs": 3.0\n}',
            COLUMN_REPLY,
            exactly=True,
        ),
        RestCase("reply: scalar in rows", TWISTED, twisted("scalar", '"instances": [1, 2]'), 400, rank, ROW_REPLY),
        RestCase("reply: uneven rows", TWISTED, twisted("uneven", '"instances": [1, 2]'), 400, uneven, ROW_REPLY),
        RestCase(
            "reply: uneven columns",
            TWISTED,
            twisted("uneven", '"inputs": [1, 2]'),
            200,
            {"outputs": {"all": [1.0, 2.0], "half": [1.0]}},
            COLUMN_REPLY,
        ),
        RestCase("reply: half", TWISTED, twisted("half", '"instances": [1]'), 400, half, WRITE),
        RestCase(
            "reply: names that end in _bytes",
            TWISTED,
            twisted("pairs", '"instances": ["a"]'),
            200,
            pairs,
            WRITE,
            exactly=True,
        ),
        RestCase(
            "reply: not finite",
            TWISTED,
            twisted("odd_floats", '"instances": [1, -1, 0]'),
            200,
            '{\n    "predictions": [Infinity, -Infinity, NaN\n    ]\n}',
            DECIMAL,
            exactly=True,
        ),
        RestCase(
            "reply: whole numbers",
            TWISTED,
            twisted("whole", '"instances": [3, -4]'),
            200,
            '{\n    "predictions": [3, -4\n    ]\n}',
            WRITE,
            exactly=True,
        ),
        RestCase(
            "reply: error of an op",
            TWISTED,
            twisted("number", '"instances": ["one"]'),
            400,
            "StringToNumberOp could not correctly convert string: one...",
            PREDICT,
        ),
    ]
