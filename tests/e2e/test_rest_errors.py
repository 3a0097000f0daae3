"""Wrong requests over REST get TF Serving's codes and texts, and the worker lives on."""

import gzip

import pytest

from tests.e2e.pool import Pool, Reply

X = [1.0, 2.0, 5.0]
MALFORMED = "Malformed request: "
HALF, SUM = "/v1/models/half_plus_two:predict", "/v1/models/sum:predict"

pytestmark = pytest.mark.usefixtures("workers_live_on")


REST = {
    "unknown model": (
        "/v1/models/nonesuch:predict",
        '{"instances": [1.0]}',
        404,
        "Servable not found for request: Latest(nonesuch)",
    ),
    "unknown version": (
        "/v1/models/half_plus_two/versions/7:predict",
        '{"instances": [1.0]}',
        404,
        "Servable not found for request: Specific(half_plus_two, 7)",
    ),
    "unknown label": (
        "/v1/models/half_plus_two/labels/canary:predict",
        '{"instances": [1.0]}',
        400,
        "Unrecognized servable version label: canary",
    ),
    "unknown signature": (
        HALF,
        '{"signature_name": "nonesuch", "instances": [1.0]}',
        400,
        'Serving signature name: "nonesuch" not found in signature def',
    ),
    "unknown verb": ("/v1/models/half_plus_two:guess", "{}", 400, MALFORMED + "POST /v1/models/half_plus_two:guess"),
    "query": (HALF + "?x", '{"instances": [1.0]}', 400, f"{MALFORMED}POST {HALF}?x; did you mean POST {HALF}?"),
    "no name": ("/v1/models/:predict", "{}", 400, MALFORMED + "POST /v1/models/:predict"),
    "empty body": (HALF, "", 400, "JSON Parse error: The document is empty"),
    "neither": (HALF, "{}", 400, "Missing 'inputs' or 'instances' key"),
    "plain for many": (
        SUM,
        '{"instances": [1.0]}',
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "plain columns for many": (
        SUM,
        '{"inputs": [1.0]}',
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "missing column": (SUM, '{"inputs": {"a": [1.0]}}', 400, "Missing named input: b in 'inputs' object."),
}


@pytest.mark.parametrize(("path", "body", "status", "text"), REST.values(), ids=REST.keys())
def test_predict_over_rest(shared_pool: Pool, path: str, body: str, status: int, text: str) -> None:
    reply = shared_pool.post(path, body)
    assert (reply.status, reply.error) == (status, text)
    assert reply.content_type == "application/json"


WRONG_JSON = {
    "both": (
        HALF,
        '{"instances": [1.0], "inputs": [1.0]}',
        'JSON Value: {\n    "instances": [\n        1.0\n    ],\n    "inputs": [\n        1.0\n    ]\n} Not formatted '
        "correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    "instances no list": (
        HALF,
        '{"instances": 1.0}',
        "JSON Value: {\n    \"instances\": 1.0\n} Expecting 'instances' to be an list/array",
    ),
    "no instances": (
        HALF,
        '{"instances": []}',
        "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
    ),
    "not JSON": (HALF, "{", "JSON Parse error: Missing a name for object member. at offset: 1"),
    "trailing comma": (HALF, '{"instances": [1.0,]}', "JSON Parse error: Invalid value. at offset: 19"),
    "single quotes": (
        HALF,
        "{'instances': [1.0]}",
        "JSON Parse error: Missing a name for object member. at offset: 1",
    ),
    "no object": (HALF, "[1.0]", "JSON Value: [\n    1.0\n] Is not object"),
    "signature no string": (
        HALF,
        '{"signature_name": 1, "instances": [1.0]}',
        'JSON Value: {\n    "signature_name": 1,\n    "instances": [\n        1.0\n    ]\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    "string for float": (HALF, '{"inputs": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float'),
    "null for float": (HALF, '{"inputs": [null]}', "JSON Value: null Type: Null is not of expected type: float"),
    "true for float": (HALF, '{"inputs": [true]}', "JSON Value: true Type: True is not of expected type: float"),
    "string for float in a row": (
        HALF,
        '{"instances": [1.0, "a"]}',
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    "ragged": (
        HALF,
        '{"inputs": [[1.0, 2.0], [1.0]]}',
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "too deep": (HALF, '{"inputs": [1.0, [2.0]]}', "Encountered list at unexpected level: 1 expected < 1"),
    "not deep enough": (
        HALF,
        '{"inputs": [[1.0], 2.0]}',
        "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "object in plain list": (
        HALF,
        '{"instances": [1.0, {"x": 2.0}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    "list among objects": (
        HALF,
        '{"instances": [{"x": 2.0}, 1.0]}',
        "Expecting object but got list at item 1 of input list",
    ),
    "key missing in a row": (
        SUM,
        '{"instances": [{"a": 1.0}]}',
        "Failed to process element: 0 of 'instances' list. "
        'JSON object: {\n    "a": 1.0\n} keys must be equal to: a,b',
    ),
    "key too many in a row": (
        SUM,
        '{"instances": [{"a": 1.0, "b": 1.0, "c": 1.0}]}',
        "Failed to process element: 0 key: c of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: c",
    ),
    "shapes differ": (
        HALF,
        '{"instances": [[1.0, 2.0], [1.0]]}',
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting tensor size: 2 but got: 1",
    ),
    "wrong shape": (
        "/v1/models/dense:predict",
        '{"instances": [[1.0, 2.0]]}',
        "Matrix size-incompatible: In[0]: [1,2], In[1]: [15,15]",
    ),
    "bad base64": (
        "/v1/models/demo:predict",
        '{"signature_name": "test_assign", "inputs": {"b": {"b64": "!!!"}}}',
        "Unable to base64 decode",
    ),
}


@pytest.mark.parametrize(("path", "body", "text"), WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_wrong_json(shared_pool: Pool, path: str, body: str, text: str) -> None:
    reply = shared_pool.post(path, body)
    # After a line break an operation of TensorFlow names its node, as this very build of the model calls it.
    assert (reply.status, reply.error.partition("\n\t [[")[0]) == (400, text)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_wrong_http_method(shared_pool: Pool, method: str) -> None:
    reply = shared_pool.http(method, "/v1/models/half_plus_two", b"{}")
    assert (reply.status, reply.error) == (400, f"{MALFORMED}{method} /v1/models/half_plus_two")


def test_path_outside_the_api(shared_pool: Pool) -> None:
    reply = shared_pool.get("/nonesuch")
    assert (reply.status, reply.content_type) == (404, "text/html; charset=utf-8")
    assert "The requested URL /nonesuch was not found on this server." in reply.text


def test_gzip_that_is_none(shared_pool: Pool) -> None:
    def post(body: bytes) -> Reply:
        return shared_pool.http("POST", HALF, body, {"Content-Encoding": "gzip"})

    good = gzip.compress(b'{"instances": [1.0]}')
    assert post(good).json == {"predictions": [2.5]}
    for body, reason in (
        (b"no gzip", "Error -3 while decompressing data: incorrect header check"),
        (good[:-9], "the stream is cut short"),
    ):
        reply = post(body)
        assert (reply.status, reply.error) == (400, f"Request body is not valid gzip: {reason}")


def test_any_bytes_as_a_body(shared_pool: Pool) -> None:
    for body, text in (
        (b"\x00", "JSON Parse error: The document is empty. at offset: 0"),
        (b"\xff\xfe", "JSON Parse error: Invalid value. at offset: 0"),
        (b'"\xff"', 'JSON Value: "\ufffd" Is not object'),
        (b"{" * 10_000, "JSON Parse error: Missing a name for object member. at offset: 1"),
        (b"[" * 100_000, "JSON Parse error: Invalid value. at offset: 100000"),
        (b'{"instances": [' + b"[" * 50_000, "JSON Parse error: Invalid value. at offset: 50015"),
    ):
        reply = shared_pool.post(HALF, body)
        assert (reply.status, reply.error) == (400, text), body[:20]


def test_too_big_over_rest(shared_pool: Pool) -> None:
    body = '{"instances": [' + ",".join(["1.0"] * 500_000) + "]}"
    reply = shared_pool.post("/v1/models/half_plus_two:predict", body)
    text = f"Request body is too large: {len(body)} bytes, the limit max_request_bytes is 1000000"
    assert (reply.status, reply.error) == (413, text)
