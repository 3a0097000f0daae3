"""The table of REST cases: a request, the HTTP status and the body that must come, and where TF Serving decides it.

Pure: `test_rest_cases` sends them. Models are those of `shared_pool`; sources are files and functions of TensorFlow
Serving, below `tensorflow_serving/`.
"""

import json
from typing import Any

from tests.e2e.rest_case import HALF, LOOKUP, MALFORMED, METADATA, PROCESS, REGEX, SERVER, STATUS, RestCase
from tests.e2e.rest_example_cases import examples
from tests.e2e.rest_predict_cases import big_lists, layouts, parsing, replies, values


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


REST_CASES: tuple[RestCase, ...] = (
    *_grammar(),
    *_lookups(),
    *_gets(),
    *parsing(),
    *layouts(),
    *big_lists(),
    *values(),
    *replies(),
    *examples(),
)
