"""Flags that change what clients see, switched on together in one pool; and TLS on both ports in another."""

import gzip
import http.client
import json
import ssl
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2

from modelpool.frontend.client import Client, Tls
from tests.certificates import Authority, Pair
from tests.e2e.eventually import eventually
from tests.e2e.pool import (
    CALL_WITHIN_S,
    START_WITHIN_S,
    Pool,
    model_config,
    predict_request,
    refusal,
    running_pool,
    starting_pool,
)
from tests.e2e.tensor_proto import tensor
from tests.e2e.test_examples import classify, regress

MODELS = ("half_plus_two", "spam", "dense", "slow")
REST_TIMEOUT_S = 2
FLAGS = (
    "--enable_signature_method_name_check",
    "--enable_serialization_as_tensor_content",
    "--enable_grpc_healthcheck_service",
    "--rest_api_enable_cors_support",
    f"--rest_api_timeout_in_ms={REST_TIMEOUT_S * 1000}",
    "--num_request_iterations_for_warmup=3",
    "--model_config_file_poll_wait_seconds=1",
    "--enable_profiler=false",
)
NOT_CLASSIFY = (
    "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict"
)
NOT_REGRESS = (
    "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict"
)
HALF = "/v1/models/half_plus_two:predict"


@pytest.fixture(scope="module")
def pool(models: Path, engine: str) -> Iterator[Pool]:
    config = model_config({name: models / name for name in MODELS})
    with running_pool(config, f"--frontend={engine}", *FLAGS) as started:
        started.wait_available(*MODELS)
        yield started


def test_method_names_are_checked(pool: Pool) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(lambda: classify(pool, "spam", "", {"weights": [0, 1]})) == (invalid, NOT_CLASSIFY)
    assert refusal(lambda: regress(pool, "spam", "regress", {"weights": [0, 1]})) == (invalid, NOT_REGRESS)
    reply = pool.post("/v1/models/spam:classify", {"examples": [{"weights": [0.5, 0.5]}]})
    assert (reply.status, reply.error) == (400, NOT_CLASSIFY)
    response = regress(pool, "half_plus_two", "regress_x_to_y", {"x": [1.0]})
    assert [each.value for each in response.result.regressions] == [2.5]


def test_tensor_content(pool: Pool) -> None:
    outputs = pool.predict(predict_request("half_plus_two", {"x": tensor([1.0, 2.0])})).outputs
    assert outputs["y"] == tensor([2.5, 3.0], content=True)
    texts = predict_request("spam", {"text": tensor([b"ab"], "string")}, signature="length")
    outputs = pool.predict(texts).outputs
    assert outputs["length"].tensor_content
    assert list(outputs["text_bytes"].string_val) == [b"ba"]


def test_health_of_each_model(pool: Pool) -> None:
    """A model is SERVING when it answers; a watcher is told when it goes."""
    stub = health_pb2_grpc.HealthStub(pool.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "PredictionService", "ModelService", *MODELS):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_WITHIN_S).status == serving, name
    unknown = health_pb2.HealthCheckRequest(service="nonesuch")
    assert refusal(lambda: stub.Check(unknown, timeout=CALL_WITHIN_S))[0] is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="dense"), timeout=START_WITHIN_S)
    assert next(watch).status == serving
    config = pool.config
    try:
        pool.write_config("\n".join(line for line in config.splitlines() if '"dense"' not in line))
        assert next(watch).status != serving
    finally:
        watch.cancel()
        pool.write_config(config)
    eventually(lambda: pool.versions("dense").get(2) == "AVAILABLE", START_WITHIN_S, "dense is back")
    assert stub.Check(health_pb2.HealthCheckRequest(service="dense"), timeout=CALL_WITHIN_S).status == serving


def test_no_profiler(pool: Pool) -> None:
    call = pool.channel.unary_unary("/tensorflow.ProfilerService/Profile")
    assert refusal(lambda: call(b"", timeout=CALL_WITHIN_S))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_warmup_requests_run_several_times(pool: Pool) -> None:
    assert "warm records=1 iterations=3" in pool.log


def test_a_rest_call_has_a_time_limit(pool: Pool) -> None:
    seconds = REST_TIMEOUT_S + 0.5
    call = pool.stub().Predict.future(predict_request("slow", {"seconds": tensor(seconds, "float64")}), timeout=60)
    late = pool.post("/v1/models/slow:predict", {"inputs": seconds})
    assert late.status == 504
    assert late.error.startswith("Deadline exceeded")
    (elapsed,) = struct.unpack("<d", call.result().outputs["elapsed"].tensor_content)
    assert elapsed >= seconds, "the limit of REST is not gRPC's"


def test_replies_have_cors_headers(pool: Pool) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", pool.rest_port, timeout=CALL_WITHIN_S)) as connection:
        for method, path, status in (("GET", "/v1/models/spam", 200), ("GET", "/v1/models/none", 404)):
            connection.request(method, path)
            reply = connection.getresponse()
            reply.read()
            assert reply.status == status
            assert reply.getheader("Access-Control-Allow-Origin") == "*"
            assert reply.getheader("Access-Control-Allow-Methods") == "POST, GET"
            assert reply.getheader("Access-Control-Allow-Headers") == "Content-Type"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_binary_body(pool: Pool, packed: bool) -> None:
    body = predict_request("half_plus_two", {"x": tensor([1.0, 2.0])}).SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    with closing(http.client.HTTPConnection("127.0.0.1", pool.rest_port, timeout=CALL_WITHIN_S)) as connection:
        connection.request("POST", HALF, body, headers)
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("Content-Type")) == (200, "application/x-protobuf")
        response = predict_pb2.PredictResponse.FromString(reply.read())
    assert response.outputs["y"] == tensor([2.5, 3.0], content=True)
    assert response.model_spec.version.value == 123


# -- TLS -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secured:
    """A pool that wants TLS and a client's certificate on both ports."""

    pool: Pool
    servers: Authority
    client: Pair

    def https(self, context: ssl.SSLContext) -> tuple[int, bytes]:
        """A predict request over HTTPS."""
        connection = http.client.HTTPSConnection(
            "localhost", self.pool.rest_port, timeout=CALL_WITHIN_S, context=context
        )
        with closing(connection):
            connection.request("POST", HALF, '{"instances": [1.0]}')
            reply = connection.getresponse()
            return reply.status, reply.read()

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.servers.cert)
        chain = self.pool.root / "client.pem"
        chain.write_text(f"{self.client.key}\n{self.client.cert}", encoding="utf-8")
        context.load_cert_chain(chain)
        return context


@pytest.fixture(scope="module")
def secured(models: Path, tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Secured]:
    servers, clients = Authority("servers"), Authority("clients")
    pair, path = servers.issue("localhost"), tmp_path_factory.mktemp("tls") / "ssl.pbtxt"
    fields = {"server_key": pair.key, "server_cert": pair.cert, "custom_ca": clients.cert}
    lines = [f"{name}: {json.dumps(text)}" for name, text in fields.items()]
    path.write_text("\n".join([*lines, "client_verify: true"]), encoding="utf-8")
    flags = (f"--ssl_config_file={path}", f"--rest_ssl_config_file={path}")
    config = model_config({"half_plus_two": models / "half_plus_two"})
    with starting_pool(config, f"--frontend={engine}", *flags) as pool:

        def listens() -> bool:
            assert pool.running, pool.log
            return f"listening engine={engine} " in pool.log

        eventually(listens, START_WITHIN_S)
        yield Secured(pool, servers, clients.issue("client"))


def test_tls_over_grpc(secured: Secured) -> None:
    target = f"localhost:{secured.pool.grpc_port}"
    tls = Tls(secured.servers.cert.encode(), secured.client.key.encode(), secured.client.cert.encode())
    with Client(target, tls=tls) as client:
        assert client.predict("half_plus_two", [1.0])["y"].tolist() == [2.5]
    request = predict_request("half_plus_two", {"x": tensor([1.0])})
    code, _ = refusal(lambda: secured.pool.predict(request, timeout_s=5.0))
    assert code is grpc.StatusCode.UNAVAILABLE, "without TLS"


def test_tls_over_rest(secured: Secured) -> None:
    status, body = secured.https(secured.context())
    assert (status, json.loads(body)) == (200, {"predictions": [2.5]})
    with pytest.raises((ssl.SSLError, OSError)):
        secured.https(ssl.create_default_context(cadata=secured.servers.cert))
