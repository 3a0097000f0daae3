"""Requests through a real frontend: gRPC and REST in, a fake worker's echo out, and every way to be refused."""

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.client_messages import StatusReply, StatusRequest
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.protos import GetModelStatusRequest, GetModelStatusResponse
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, version

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"


def request(name: str = "m", number: int | None = None, label: str | None = None, tail: bytes = b"") -> bytes:
    """A request for a model; `tail` travels as an unknown field."""
    message = GetModelStatusRequest()
    message.model_spec.name = name
    if number is not None:
        message.model_spec.version.value = number
    if label is not None:
        message.model_spec.version_label = label
    raw: bytes = message.SerializeToString()
    return raw + (b"\x2a" + _varint(len(tail)) + tail if tail else b"")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def predict(channel: grpc.Channel, payload: bytes, timeout: float = WAIT_S) -> bytes:
    reply: bytes = channel.unary_unary(PREDICT)(payload, timeout=timeout)
    return reply


def refusal(channel: grpc.Channel, payload: bytes, timeout: float = WAIT_S, method: str = PREDICT) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(payload, timeout=timeout)
    return caught.value.code().name, caught.value.details()


class Http:
    """A keep-alive connection to the REST port."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)

    def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, target, body, headers)
        reply = self.connection.getresponse()
        self.content_type = reply.getheader("Content-Type")
        return reply.status, reply.read()

    def error(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, str]:
        status, raw = self(method, target, body, **headers)
        assert self.content_type == "application/json"
        return status, json.loads(raw)["error"]


@pytest.fixture
def http_client(frontend: FakeFrontendOwner) -> Iterator[Http]:
    client = Http(frontend.spec.rest_port)
    yield client
    client.connection.close()


def test_grpc_forwards_bytes_both_ways(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    for size in (0, 1, 63_000, 64 * 1024, 3_000_000):
        payload = request(tail=bytes(size))
        assert predict(channel, payload) == b"echo:" + payload
    worker.error = (Code.FAILED_PRECONDITION, 'Serving signature key "é" not found.'.encode())
    assert refusal(channel, request()) == ("FAILED_PRECONDITION", 'Serving signature key "é" not found.')
    worker.error = (Code.INTERNAL, b"x" * 5000)
    _, text = refusal(channel, request())
    assert len(text) == 1024
    assert text.endswith("x...TRUNCATED")


def test_version_label_and_latest(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel, http_client: Http
) -> None:
    one, two = stage.worker("one"), stage.worker("two")
    frontend.route(ModelRoute("m", (version(1, one), version(2, two)), {"stable": 1}))
    assert predict(channel, request()).startswith(b"two:")
    assert predict(channel, request(number=1)).startswith(b"one:")
    assert predict(channel, request(label="stable")).startswith(b"one:")
    assert http_client("POST", "/v1/models/m:predict", b"{}") == (200, b"two:{}")
    assert http_client("POST", "/v1/models/m/versions/1:predict", b"[]") == (200, b"one:[]")
    assert http_client("POST", "/v1/models/m/labels/stable:predict", b"") == (200, b"one:")


def test_lookup_errors_of_grpc(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    assert refusal(channel, b"") == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refusal(channel, request("")) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    assert refusal(channel, request("x")) == ("NOT_FOUND", "Servable not found for request: Latest(x)")
    assert refusal(channel, request(number=9)) == ("NOT_FOUND", "Servable not found for request: Specific(m, 9)")
    assert refusal(channel, request(label="l")) == ("INVALID_ARGUMENT", "Unrecognized servable version label: l")
    assert refusal(channel, b"\x0a\x05ab") == ("INTERNAL", "Malformed request: truncated at byte 2")
    assert refusal(channel, request(), method="/tensorflow.serving.SessionService/SessionRun")[0] == "UNIMPLEMENTED"
    assert refusal(channel, request(tail=bytes(5 << 20)))[0] == "RESOURCE_EXHAUSTED"


MEANT = "; did you mean POST /v1/models/m:predict?"


def test_rest_errors(stage: Stage, frontend: FakeFrontendOwner, http_client: Http) -> None:
    worker = stage.worker()
    worker.error = (Code.INVALID_ARGUMENT, b'JSON Value: "a\\b"\n is not \xff')
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    error = http_client.error
    assert error("POST", "/v1/models/m:predict", b"{}") == (400, 'JSON Value: "a\\b"\n is not \ufffd')
    assert error("POST", "/v1/models/x:predict", b"{}") == (404, "Servable not found for request: Latest(x)")
    assert error("POST", "/v1/models/m") == (400, f"Malformed request: POST /v1/models/m{MEANT}")
    assert error("POST", "/v1/models/m:predict?x") == (400, f"Malformed request: POST /v1/models/m:predict?x{MEANT}")
    assert error("PUT", "/v1/models/m") == (400, "Malformed request: PUT /v1/models/m")
    assert error("GET", "/v1/models") == (400, "Missing model name in request.")
    assert error("GET", "/v1/models/x") == (404, "Could not find any versions of model x")
    assert error("GET", "/v1/models/m/versions/9") == (404, "Could not find version 9 of model m")
    assert error("GET", "/v1/models/m?x") == (404, "Could not find any versions of model m?x")
    assert http_client("GET", f"/v1/models/m/versions/{1 << 63}") == (400, b"")
    assert http_client("HEAD", "/v1/models/m") == (400, b"")
    assert http_client("OPTIONS", "/v1/models/m", Origin="https://example.org") == (200, b"")
    assert http_client("OPTIONS", "/v1/models/m") == (400, b"")
    assert http_client("GET", "/<else>")[0] == 404
    assert http_client.content_type == "text/html; charset=utf-8"


def test_bodies(stage: Stage, frontend: FakeFrontendOwner, http_client: Http) -> None:
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    path, limit = "/v1/models/m:predict", frontend.spec.max_request_bytes
    largest = b"x" * limit
    assert http_client("POST", path, largest) == (200, b"echo:" + largest)
    assert http_client("POST", path, iter([b"ab", b"cd"])) == (200, b"echo:abcd")
    packed = gzip.compress(b"ab" * 300_000) + gzip.compress(b"cd")
    assert http_client("POST", path, packed, **{"Content-Encoding": "gzip"}) == (
        200,
        b"echo:" + b"ab" * 300_000 + b"cd",
    )
    status, text = http_client.error("POST", path, b"no gzip", **{"Content-Encoding": "gzip"})
    assert (status, text[:34]) == (400, "Request body is not valid gzip: Er")
    status, text = http_client.error("POST", path, packed[:100], **{"Content-Encoding": "gzip"})
    assert (status, text) == (400, "Request body is not valid gzip: the stream is cut short")
    assert http_client("POST", path, b"{}") == (200, b"echo:{}")


def test_oversize_bodies(stage: Stage, frontend: FakeFrontendOwner, http_client: Http) -> None:
    path, limit = "/v1/models/m:predict", frontend.spec.max_request_bytes
    status, text = http_client.error("POST", path, b"x" * (limit + 1))
    assert status == 413
    assert text == f"Request body is too large: {limit + 1} bytes, the limit max_request_bytes is {limit}"
    many = f"Request body is too large: more than {limit} bytes, the limit max_request_bytes"
    assert http_client.error("POST", path, iter([b"x" * 65_536] * (limit // 65_536 + 1))) == (413, many)
    bomb = gzip.compress(bytes(40 * limit))
    assert len(bomb) < limit
    assert http_client.error("POST", path, bomb, **{"Content-Encoding": "gzip"}) == (413, many)


def test_model_status(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel, http_client: Http) -> None:
    broken = version(3, state=ServableState.END, code=Code.NOT_FOUND, message='no "saved_model.pb" é')
    frontend.route(ModelRoute("m", (version(2, stage.worker()), broken), {}))
    entries = json.loads(http_client("GET", "/v1/models/m")[1])["model_version_status"]
    fine = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    status = {"error_code": "NOT_FOUND", "error_message": 'no "saved_model.pb" é'}
    assert entries == [{"version": "3", "state": "END", "status": status}, fine]
    assert json.loads(http_client("GET", "/v1/models/m/versions/2")[1]) == {"model_version_status": [fine]}
    assert len(json.loads(http_client("GET", "/v1/models/m/labels/any")[1])["model_version_status"]) == 2
    reply = GetModelStatusResponse.FromString(channel.unary_unary(MODEL_STATUS)(request(), timeout=WAIT_S))
    got = [
        (each.version, each.state, each.status.error_code, each.status.error_message)
        for each in reply.model_version_status
    ]
    assert got == [(3, 50, 5, 'no "saved_model.pb" é'), (2, 30, 0, "")]
    assert reply.model_version_status[1].HasField("status")
    assert refusal(channel, b"", method=MODEL_STATUS) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    unknown = ("NOT_FOUND", "Could not find any versions of model x")
    assert refusal(channel, request("x"), method=MODEL_STATUS) == unknown


def test_pool_status(frontend: FakeFrontendOwner, http_client: Http) -> None:
    http_client.connection.request("GET", "/pool/v1/status")
    question = frontend.expect(StatusRequest)
    frontend.send(StatusReply(question.token + 100, b"not asked for"))
    frontend.send(StatusReply(question.token, b'{"models": []}'))
    reply = http_client.connection.getresponse()
    assert (reply.status, reply.read()) == (200, b'{"models": []}')
    assert http_client.error("GET", "/pool/v1/status") == (503, "The supervisor did not answer within 2.0 s")


def test_deadline_of_grpc_travels_and_drops_the_request(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    before_ns = time.monotonic_ns()
    assert refusal(channel, request(), timeout=0.5)[0] == "DEADLINE_EXCEEDED"
    held = eventually(lambda: worker.held, "the request")[0]
    assert held.header.method is Method.PREDICT
    assert before_ns < held.header.deadline_ns < time.monotonic_ns() + int(0.5e9)
    worker.release()
    assert predict(channel, request()).startswith(b"echo:")


def test_no_deadline_is_zero_on_the_wire(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    call = channel.unary_unary(PREDICT).future(request(), wait_for_ready=True)
    assert eventually(lambda: worker.held, "the request")[0].header.deadline_ns == 0
    worker.release()
    assert call.result(WAIT_S).startswith(b"echo:")


def test_rest_timeout(stage: Stage) -> None:
    frontend = stage.frontend(rest_timeout_s=0.3)
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    frontend.open_ports()
    client = Http(frontend.spec.rest_port)
    start = time.monotonic()
    text = "Deadline exceeded before model m version 1 answered"
    assert client.error("POST", "/v1/models/m:predict", b"{}") == (504, text)
    assert 0.25 < time.monotonic() - start < 1.5
    client.connection.close()


def test_a_client_that_goes_away_is_dropped(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    client = Http(frontend.spec.rest_port)
    client.connection.request("POST", "/v1/models/m:predict", b"{}")
    call = channel.unary_unary(PREDICT).future(request())
    eventually(lambda: len(worker.held) == 2, "both requests")
    client.connection.close()
    call.cancel()
    ids = {held.header.request_id for held in worker.held}
    eventually(lambda: set(worker.cancelled) == ids, "both cancelled")
    # Nothing in flight any more: a table without the worker sets it free at once.
    frontend.route()
    frontend.expect_released(worker)
    assert b"Traceback" not in frontend.log


def test_least_in_flight(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    workers = [stage.worker(str(number)) for number in range(2)]
    for worker in workers:
        worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, *workers),), {}))
    calls = [channel.unary_unary(PREDICT).future(request(), timeout=WAIT_S) for _ in range(8)]
    eventually(lambda: sum(len(worker.held) for worker in workers) == 8, "the requests")
    assert [len(worker.held) for worker in workers] == [4, 4]
    for worker in workers:
        worker.release()
    assert all(call.result(WAIT_S) for call in calls)


def test_a_full_queue_is_an_answer(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    calls = [channel.unary_unary(PREDICT).future(request(), timeout=WAIT_S) for _ in range(1000)]
    eventually(lambda: len(worker.held) == 1000, "the requests")
    text = "The batch scheduling queue to which this task was submitted is full: model m: 1000 requests wait"
    assert refusal(channel, request()) == ("UNAVAILABLE", text)
    worker.release()
    assert sum(call.result(WAIT_S).startswith(b"echo:") for call in calls) == 1000
    assert predict(channel, request()).startswith(b"echo:")


def test_garbage_from_a_worker(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    call = channel.unary_unary(PREDICT).future(request(), timeout=WAIT_S)
    sender = eventually(lambda: worker.held, "the request")[0].sender
    for frames in ([b""], [b"abc", b"def"], [b"\xff" * 9, b""], [b"a", b"b", b"c"], [bytes(9), b"unknown id"]):
        worker.send_raw([sender, *frames])
    worker.release()
    assert call.result(WAIT_S).startswith(b"echo:")


def test_http_garbage(stage: Stage, frontend: FakeFrontendOwner, http_client: Http) -> None:
    for raw in (
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", frontend.spec.rest_port), WAIT_S) as connection:
            connection.sendall(raw)
            assert connection.recv(100).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert http_client("GET", "/v1/models/x")[0] == 404
