"""The REST surface beside JSON predict: the other calls, binary bodies, CORS, slow and exploding bodies."""

import contextlib
import gzip
import http.client
import json
import socket
import ssl
from collections.abc import Mapping

import pytest
from tensorflow_serving.apis import predict_pb2

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, FakeWorker, Stage, version

PATH = "/v1/models/m:predict"
OFFERS = 2000
PROTOBUF = {"Content-Type": "application/x-protobuf"}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}


@pytest.fixture
def worker(stage: Stage) -> FakeWorker:
    return stage.worker()


def opened(owner: FakeFrontendOwner, *workers: FakeWorker) -> FakeFrontendOwner:
    """The frontend with its ports open and a route for the model `m`."""
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, *workers),), {}))
    return owner


def call(
    owner: FakeFrontendOwner,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of one request on a connection of its own."""
    port = owner.spec.rest_port
    connection: http.client.HTTPConnection = (
        http.client.HTTPConnection("localhost", port, timeout=WAIT_S)
        if context is None
        else http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
    )
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        reply = connection.getresponse()
        return reply.status, reply.read(), {name.lower(): value for name, value in reply.getheaders()}


def predict_request(name: str) -> bytes:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = name
    message.output_filter.append("y")
    raw: bytes = message.SerializeToString()
    return raw


@pytest.mark.parametrize(
    ("verb", "of_json", "of_protobuf"),
    [
        ("predict", Method.REST_PREDICT, Method.PREDICT),
        ("classify", Method.REST_CLASSIFY, Method.CLASSIFY),
        ("regress", Method.REST_REGRESS, Method.REGRESS),
    ],
)
def test_verbs(stage: Stage, worker: FakeWorker, verb: str, of_json: Method, of_protobuf: Method) -> None:
    owner = opened(stage.frontend(), worker)
    path = f"/v1/models/m/versions/1:{verb}"
    status, body, headers = call(owner, "POST", path, b"{}", {"Content-Type": "text/plain"})
    assert (status, body, headers["content-type"]) == (200, b"echo:{}", "application/json")
    assert worker.seen[-1].header.method is of_json
    sent = predict_request("m")
    for content_type in ("application/x-protobuf", "Application/X-Protobuf; messageType=x"):
        status, body, headers = call(owner, "POST", path, sent, {"Content-Type": content_type})
        assert (status, body, headers["content-type"]) == (200, b"echo:" + sent, "application/x-protobuf")
        assert worker.seen[-1].header.method is of_protobuf


def test_metadata(stage: Stage, worker: FakeWorker) -> None:
    owner = opened(stage.frontend(), worker)
    status, body, headers = call(owner, "GET", "/v1/models/m/metadata")
    assert (status, body, headers["content-type"]) == (200, b"echo:", "application/json")
    assert (worker.seen[-1].header.method, worker.seen[-1].payload) == (Method.REST_METADATA, b"")
    assert call(owner, "GET", "/v1/models/x/metadata")[0] == 404


def test_a_binary_body_and_the_path(stage: Stage, worker: FakeWorker) -> None:
    """The path decides; a body that names no model is fine, one that names another is refused."""
    owner = opened(stage.frontend(), worker)
    assert call(owner, "POST", PATH, b"", PROTOBUF)[:2] == (200, b"echo:")
    packed = gzip.compress(predict_request("m"))
    assert call(owner, "POST", PATH, packed, PROTOBUF | {"Content-Encoding": "gzip"})[1] == b"echo:" + predict_request(
        "m"
    )
    for body, status, text in (
        (predict_request("x"), 400, "model_spec.name of the body: expected 'm' as in the path, or nothing, got 'x'"),
        (b"\xff\xff", 500, "Malformed request: truncated at byte 2"),
    ):
        answer = call(owner, "POST", PATH, body, PROTOBUF)
        assert (answer[0], json.loads(answer[1]), answer[2]["content-type"]) == (
            status,
            {"error": text},
            "application/json",
        )
    worker.error = (Code.FAILED_PRECONDITION, 'no such "signatur\u00e9"'.encode())
    status, body, headers = call(owner, "POST", PATH, predict_request("m"), PROTOBUF)
    assert (status, body.decode()) == (400, '{\n    "error": "no such \\"signatur\u00e9\\""\n}')
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("cors", [False, True])
def test_cors(stage: Stage, worker: FakeWorker, cors: bool) -> None:
    """Every reply has the headers, or none has."""
    owner = opened(stage.frontend(rest_cors=cors), worker)
    origin = {"Origin": "https://example.org"}
    for method, path, body, status in (
        ("POST", PATH, b"{}", 200),
        ("GET", "/v1/models/m", None, 200),
        ("POST", "/v1/models/x:predict", b"{}", 404),
        ("OPTIONS", PATH, None, 200),
        ("GET", "/else", None, 404),
    ):
        answer = call(owner, method, path, body, origin)
        assert answer[0] == status
        assert {name: answer[2].get(name) for name in CORS} == (CORS if cors else dict.fromkeys(CORS))


@pytest.mark.parametrize("path", ["/healthz", "/v1/models/m", "/nothing"])
def test_an_answer_to_head_ends_with_its_headers(stage: Stage, worker: FakeWorker, path: str) -> None:
    """What came after them would be the beginning of the next answer on the connection."""
    owner = opened(stage.frontend(), worker)
    asked = f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n" + f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("localhost", owner.spec.rest_port), timeout=WAIT_S) as connection:
        connection.sendall(asked.encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    head, of_get, body = said.split(b"\r\n\r\n")
    assert [part.startswith(b"HTTP/1.1 ") for part in (head, of_get, body)] == [True, True, False]
    assert b"content-length: %d\r\n" % len(body) in of_get.lower()
    assert b"content-length: 0" not in head.lower()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.2", ""])
def test_an_offer_of_another_protocol_is_declined(stage: Stage, worker: FakeWorker, protocol: str) -> None:
    """Java's client offers HTTP/2 with the first request of a connection, body and all."""
    owner = opened(stage.frontend(), worker)
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    asked = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{offer}Content-Length: 5\r\n\r\n"
    then = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond"
    with socket.create_connection(("localhost", owner.spec.rest_port), timeout=WAIT_S) as connection:
        connection.sendall(f"{asked}fir".encode())
        connection.sendall(f"st{then}".encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert said.index(b"echo:first") < said.index(b"echo:second")


def test_offers_one_behind_the_other(stage: Stage, worker: FakeWorker) -> None:
    owner = opened(stage.frontend(), worker)
    offer = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n."
    last = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond".encode()
    with socket.create_connection(("localhost", owner.spec.rest_port), timeout=WAIT_S) as connection:
        connection.sendall(offer * OFFERS + last)
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.count(b"HTTP/1.1 404 Not Found\r\n") == OFFERS
    assert said.count(b"HTTP/1.1 ") == OFFERS + 1
    assert said.endswith(b"echo:second")


def test_a_body_that_unfolds_too_far(stage: Stage, worker: FakeWorker) -> None:
    owner = opened(stage.frontend(max_request_bytes=1 << 30), worker)
    gzipped = {"Content-Encoding": "gzip"}
    honest = gzip.compress(b"0.0, " * (4 << 20))
    assert call(owner, "POST", PATH, honest, gzipped)[0] == 200
    bomb = gzip.compress(b" " * (64 << 20))
    status, body, _ = call(owner, "POST", PATH, bomb, gzipped)
    assert status == 413
    assert "bytes of gzip unpack to more than" in json.loads(body)["error"]
    assert call(owner, "POST", PATH, b"{}")[0] == 200


def test_a_body_that_does_not_come(stage: Stage, worker: FakeWorker) -> None:
    """The time limit of a call is for its body, too; others are served meanwhile."""
    owner = opened(stage.frontend(rest_timeout_s=0.5), worker)
    with socket.create_connection(("127.0.0.1", owner.spec.rest_port), WAIT_S) as slow:
        slow.sendall(f"POST {PATH} HTTP/1.1\r\nHost: m\r\nContent-Length: 10\r\n\r\n{{".encode())
        assert call(owner, "POST", PATH, b"{}")[0] == 200
        answer = http.client.HTTPResponse(slow, method="POST")
        answer.begin()
        body = answer.read()
    assert answer.status == 504
    assert b"Deadline exceeded before the whole request body had come" in body
