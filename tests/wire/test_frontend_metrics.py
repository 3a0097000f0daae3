"""What a frontend reports of its requests, and the metrics page on its REST port."""

import http.client
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.metric_families import REQUEST_COUNT, REQUEST_LATENCY, REQUESTS
from modelpool.supervisor.wire.metric_messages import MetricsReply, MetricsReport, MetricsRequest
from modelpool.supervisor.wire.metrics import Family, unpack
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, version

PATH = "/monitoring/prometheus/metrics"
Counts = Counter[tuple[str, ...]]


@pytest.fixture
def frontend(stage: Stage) -> FakeFrontendOwner:
    """A frontend that listens, serves its metrics, and routes the model m to a worker that echoes."""
    owner = stage.frontend(metrics_path=PATH)
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    return owner


def ask(channel: grpc.Channel, api: str, name: str) -> str:
    """The code of one call."""
    request = GetModelStatusRequest()
    request.model_spec.name = name
    try:
        channel.unary_unary(f"/tensorflow.serving.PredictionService/{api}")(request.SerializeToString(), timeout=WAIT_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def rest(frontend: FakeFrontendOwner, method: str, target: str) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    try:
        connection.request(method, target, b"{}" if method == "POST" else None)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Type"), reply.read()
    finally:
        connection.close()


class Reported:
    """All that a frontend has reported so far."""

    def __init__(self, frontend: FakeFrontendOwner) -> None:
        self._frontend = frontend
        self._values: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def counts(self, family: Family) -> Counts:
        """By label values; of a histogram the number of observations."""
        for message in list(self._frontend.receive()):
            if isinstance(message, MetricsReport):
                self._frontend.received.remove(message)
                self._values |= {(each.family, each.labels): unpack(each.values) for each in message.samples}
        found = {labels: values for (name, labels), values in self._values.items() if name == family.name}
        return Counter({labels: int(sum(values[1:] or values)) for labels, values in found.items()})

    def expect(self, family: Family, expected: Mapping[Any, int]) -> None:
        """Until the counts are these, and no others."""
        eventually(lambda: self.counts(family) == expected, f"{family.name} {expected}, got {self.counts(family)}")


def test_grpc_requests_are_counted_by_code(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    assert [ask(channel, "Predict", name) for name in ("m", "m", "unknown", "")] == [
        "OK",
        "OK",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
    ]
    stage.workers[0].error = (Code.FAILED_PRECONDITION, b"no")
    assert ask(channel, "Classify", "m") == "FAILED_PRECONDITION"
    assert ask(channel, "GetModelMetadata", "m") == "INVALID_ARGUMENT"  # without a metadata_field
    reported = Reported(frontend)
    counts = {
        ("m", "OK"): 2,
        ("unknown", "NOT_FOUND"): 1,
        ("", "INVALID_ARGUMENT"): 1,
        ("m", "FAILED_PRECONDITION"): 1,
    }
    reported.expect(REQUEST_COUNT, counts)
    reported.expect(REQUEST_LATENCY, {("m", "Predict", "GRPC"): 2})
    assert sum(reported.counts(REQUESTS).values()) == 6


def test_rest_requests_are_counted_by_code(stage: Stage, frontend: FakeFrontendOwner) -> None:
    calls = [
        ("POST", "/v1/models/m:predict", 200),
        ("POST", "/v1/models/m/versions/1:predict", 200),
        ("POST", "/v1/models/none:predict", 404),
        ("GET", "/v1/models/m", 200),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/nonsense", 400),
        ("GET", "/v1/models/m/versions/99999999999999999999", 400),  # TF Serving returns before it counts
        ("GET", "/elsewhere", 404),
        ("GET", "/pool/v2", 404),
    ]
    assert [rest(frontend, method, target)[0] for method, target, _ in calls] == [status for _, _, status in calls]
    reported = Reported(frontend)
    counts = {("m", "OK"): 3, ("none", "NOT_FOUND"): 2, ("", "INVALID_ARGUMENT"): 1}
    reported.expect(REQUEST_COUNT, counts)
    reported.expect(REQUEST_LATENCY, {("m", "predict", "REST"): 2, ("m", "", "REST"): 1})


def test_the_page_is_the_supervisors_after_our_newest_report(
    frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    answers: list[tuple[int, str | None, bytes]] = []
    assert ask(channel, "Predict", "m") == "OK"
    client = threading.Thread(target=lambda: answers.append(rest(frontend, "GET", PATH)))
    client.start()
    question = frontend.expect(MetricsRequest)
    assert Reported(frontend).counts(REQUEST_COUNT) == {("m", "OK"): 1}
    frontend.send(MetricsReply(question.token, b"# TYPE x counter\n"))
    client.join(WAIT_S)
    assert answers == [(200, "text/plain", b"# TYPE x counter\n")]


def test_a_query_is_refused_and_a_silent_supervisor_is_said(frontend: FakeFrontendOwner) -> None:
    text = f"Unexpected path: {PATH}?x=1. Should be {PATH}".encode()
    assert rest(frontend, "GET", f"{PATH}?x=1") == (400, "text/plain", text)
    assert rest(frontend, "GET", PATH)[0] == 503


def test_no_page_without_a_path(stage: Stage) -> None:
    owner = stage.frontend()
    owner.open_ports()
    assert rest(owner, "GET", PATH)[0] == 404
