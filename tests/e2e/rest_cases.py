"""The table of REST cases: a request, the HTTP status and the body that must come, and where TF Serving decides it.

Pure: `test_rest_cases` sends them. Models are those of `shared_pool`; sources are files and functions of TensorFlow
Serving, below `tensorflow_serving/`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REGEX = "model_servers/http_rest_api_util.cc: ParseModelInfo"
PROCESS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessRequest"
SERVER = "model_servers/http_server.cc: RestApiRequestDispatcher::ProcessRequest"
PREDICT = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessPredictRequest"
CLASSIFY = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessClassifyRequest"
REGRESS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessRegressRequest"
METADATA = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessModelMetadataRequest"
STATUS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessModelStatusRequest"
LOOKUP = "model_servers/server_core.cc: ServableRequestFromModelSpec"
JSON = "util/json_tensor.cc: "
FILL = JSON + "FillPredictRequestFromJson"
ROWS = JSON + "FillTensorMapFromInstancesList"
COLUMNS = JSON + "FillTensorMapFromInputsMap"
VALUE = JSON + "AddValueToTensor"
DENSE_SHAPE = JSON + "GetDenseTensorShape"
EXAMPLES = JSON + "FillExampleFromJson"
LIST = JSON + "FillClassifyRegressRequestFromJson"
DECIMAL = JSON + "WriteDecimal"
WRITE = JSON + "AddSingleValueAndAdvance"
ROW_REPLY = JSON + "MakeRowFormatJsonFromTensors"
COLUMN_REPLY = JSON + "MakeColumnarFormatJsonFromTensors"

HALF, SUM = "/v1/models/half_plus_two:predict", "/v1/models/sum:predict"
DTYPES, TWISTED = "/v1/models/dtypes:predict", "/v1/models/twisted:predict"
CLASSIFY_PATH, REGRESS_PATH = "/v1/models/half_plus_two:classify", "/v1/models/half_plus_two:regress"
MALFORMED = "Malformed request: "


@dataclass(frozen=True)
class RestCase:
    """`expected`: an error's text (its beginning where it ends in "..."), or a reply's JSON; `exactly`: its bytes."""

    id: str
    path: str
    body: str | None
    status: int
    expected: Any
    source: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    exactly: bool = False


def _grammar() -> list[RestCase]:
    one = '{"instances": [1.0]}'
    right: Any = {"predictions": [2.5]}
    good = [
        HALF,
        "/v1/models/half_plus_two/versions/123:predict",
        "/v1/models/half_plus_two/versions/00000123:predict",
        "/v1/MODELS/half_plus_two:predict",
        "/v1/models/half%5Fplus_two:predict",
        "/v1/models/half_plus_two/VERSIONS/123:predict",
    ]
    cases = [RestCase(f"path {path}", path, one, 200, right, REGEX) for path in good]
    malformed = [
        "/v1/models/half_plus_two",
        "/v1/models/half_plus_two:Predict",
        "/v1/models/half_plus_two:guess",
        "/v1/models/half_plus_two:",
        "/v1/models/half_plus_two:predict/",
        "/v1/models/half_plus_two/:predict",
        "/v1/models/half_plus_two/predict",
        "/v1/models/half_plus_two/version1/:predict",
        "/v1/models/half_plus_two/version/1:predict",
        "/v1/models/half_plus_two/versions/:predict",
        "/v1/models/half_plus_two/versions/one:predict",
        "/v1/models/half_plus_two/versions/-1:predict",
        "/v1/models/half_plus_two/versions/123/labels/stable:predict",
        "/v1/models/half_plus_two/labels/:predict",
        "/v1/models/:predict",
        "/v1/models:predict",
        "/v1/model/half_plus_two:predict",
        "/v1/half_plus_two:predict",
        "/v1/models/half_plus_two:predict:predict",
        "/v1/models/half_plus_two:predict?x=1",
        "/v1/models/half_plus_two/metadata",
        "/v1/",
    ]
    cases += [
        RestCase(f"malformed {path}", path, one, 400, f"{MALFORMED}POST {path}...", PROCESS) for path in malformed
    ]
    gets = ["/v1/models/half_plus_two:predict", "/v1/models/a/b", "/v1/models/half_plus_two/metadata/x", "/v1/x"]
    cases += [
        RestCase(f"malformed GET {path}", path, None, 400, f"{MALFORMED}GET {path}...", PROCESS, "GET") for path in gets
    ]
    for method in ("PUT", "DELETE", "PATCH"):
        text = f"{MALFORMED}{method} {HALF}"
        cases.append(RestCase(f"{method} of predict", HALF, one, 400, text, SERVER, method))
        path = "/v1/models/half_plus_two"
        cases.append(RestCase(f"{method} of status", path, None, 400, f"{MALFORMED}{method} {path}", SERVER, method))
    return cases


def _lookups() -> list[RestCase]:
    latest, specific = "Servable not found for request: Latest({})", "Servable not found for request: Specific({}, {})"
    label = "Unrecognized servable version label: canary"
    bodies = {
        "predict": '{"instances": [1.0]}',
        "classify": '{"examples": [{"x": 1.0}]}',
        "regress": '{"examples": [{"x": 1.0}]}',
    }
    cases = []
    for verb, body in bodies.items():
        rows = [
            ("unknown model", f"/v1/models/nonesuch:{verb}", 404, latest.format("nonesuch")),
            ("unknown version", f"/v1/models/sum/versions/7:{verb}", 404, specific.format("sum", 7)),
            ("unknown label", f"/v1/models/sum/labels/canary:{verb}", 400, label),
            ("unknown model and version", f"/v1/models/no/versions/1:{verb}", 404, specific.format("no", 1)),
        ]
        cases += [RestCase(f"{verb}: {id_}", path, body, status, text, LOOKUP) for id_, path, status, text in rows]
    rows = [
        ("status: unknown model", "/v1/models/nonesuch", 404, "Could not find any versions of model nonesuch"),
        ("status: unknown version", "/v1/models/sum/versions/7", 404, "Could not find version 7 of model sum"),
        ("status: no name", "/v1/models", 400, "Missing model name in request."),
        ("status: query is part of the name", "/v1/models/sum?x", 404, "Could not find any versions of model sum?x"),
        ("metadata: unknown model", "/v1/models/nonesuch/metadata", 404, latest.format("nonesuch")),
        ("metadata: unknown version", "/v1/models/sum/versions/7/metadata", 404, specific.format("sum", 7)),
        ("metadata: unknown label", "/v1/models/sum/labels/canary/metadata", 400, label),
    ]
    cases += [RestCase(id_, path, None, code, text, STATUS, "GET") for id_, path, code, text in rows]
    return cases


def _state(version: int) -> dict[str, Any]:
    return {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def _tensor_info(name: str, dims: list[int], dtype: str = "DT_FLOAT", unknown_rank: bool = False) -> dict[str, Any]:
    shape = {"dim": [{"size": str(size), "name": ""} for size in dims], "unknown_rank": unknown_rank}
    return {"dtype": dtype, "tensor_shape": shape, "name": name}


def _gets() -> list[RestCase]:
    status = '{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "AVAILABLE",\n   "status": {\n'
    status += '    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    sum_metadata = {
        "model_spec": {"name": "sum", "signature_name": "", "version": "1"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {name: _tensor_info(f"{name}:0", [], unknown_rank=True) for name in "ab"},
                        "outputs": {
                            "total": _tensor_info("add:0", [], unknown_rank=True),
                            "product": _tensor_info("mul:0", [], unknown_rank=True),
                        },
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }
    rows: list[tuple[str, str, Any, str]] = [
        ("status of one version", "/v1/models/dense/versions/1", {"model_version_status": [_state(1)]}, STATUS),
        ("status of all", "/v1/models/dense", {"model_version_status": [_state(2), _state(1)]}, STATUS),
        (
            "status ignores a label",
            "/v1/models/dense/labels/x",
            {"model_version_status": [_state(2), _state(1)]},
            STATUS,
        ),
        ("METADATA answers as status", "/v1/models/sum/METADATA", {"model_version_status": [_state(1)]}, REGEX),
        ("metadata", "/v1/models/sum/metadata", sum_metadata, METADATA),
        ("metadata of a version", "/v1/models/sum/versions/1/metadata", sum_metadata, METADATA),
    ]
    cases = [RestCase(id_, path, None, 200, wanted, source, "GET") for id_, path, wanted, source in rows]
    exact = json.dumps({"model_version_status": [_state(1)]}, indent=1) + "\n"
    assert exact == status
    cases.append(RestCase("status, to the byte", "/v1/models/sum", None, 200, status, STATUS, "GET", exactly=True))
    return cases


def _parsing() -> list[RestCase]:
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


def _layouts() -> list[RestCase]:
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


def _big_lists() -> list[RestCase]:
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


def _values() -> list[RestCase]:
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


def _replies() -> list[RestCase]:
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


def _examples() -> list[RestCase]:
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


REST_CASES: tuple[RestCase, ...] = (
    *_grammar(),
    *_lookups(),
    *_gets(),
    *_parsing(),
    *_layouts(),
    *_big_lists(),
    *_values(),
    *_replies(),
    *_examples(),
)
