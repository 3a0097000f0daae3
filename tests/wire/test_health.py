"""The standard health service, by the generated client of the library."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelpool.supervisor.wire.frontend_messages import DrainFrontend, LameDuck, WorkerDied
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.states import ServableState

from .conftest import WAIT_S, FakeFrontendOwner, Stage, version

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICES = (
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)


class Client:
    """A stub with short calls."""

    def __init__(self, owner: FakeFrontendOwner) -> None:
        self.owner = owner
        self.channel = grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}")
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def check(self, service: str) -> int:
        status: int = self.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S).status
        return status

    def check_refused(self, service: str) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.check(service)
        name: str = caught.value.code().name
        return name

    def list(self) -> dict[str, int]:
        reply = self.stub.List(health_pb2.HealthListRequest(), timeout=WAIT_S)
        return {name: answer.status for name, answer in reply.statuses.items()}


class Watcher:
    """Collects what a Watch stream says; `next` is the next status, or the code that the stream ended with."""

    def __init__(self, client: Client, service: str) -> None:
        self._stream: Any = client.stub.Watch(health_pb2.HealthCheckRequest(service=service))
        self._seen: queue.Queue[int | str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._stream:
                self._seen.put(answer.status)
        except grpc.RpcError as error:
            self._seen.put(error.code().name)

    def next(self) -> int | str:
        return self._seen.get(timeout=WAIT_S)


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    owner = stage.frontend(health=True)
    owner.open_ports()
    client = Client(owner)
    yield client
    client.channel.close()


def test_check_and_list(stage: Stage, client: Client) -> None:
    loading = version(2, state=ServableState.LOADING)
    client.owner.route(
        ModelRoute("up", (version(1, stage.worker()), loading), {}),
        ModelRoute("loading", (loading,), {}),
        ModelRoute("empty", (), {}),
    )
    for service in SERVICES:
        assert client.check(service) == SERVING
    assert client.check("") == NOT_SERVING, "two models are missing"
    assert client.check("up") == SERVING
    assert client.check("loading") == NOT_SERVING
    assert client.check("empty") == NOT_SERVING
    assert client.check_refused("unknown") == "NOT_FOUND"
    assert client.list() == dict.fromkeys(SERVICES, SERVING) | {
        "": NOT_SERVING,
        "up": SERVING,
        "loading": NOT_SERVING,
        "empty": NOT_SERVING,
    }


def test_a_watcher_sees_each_change_of_its_model(stage: Stage, client: Client) -> None:
    worker = stage.worker()
    up = ModelRoute("m", (version(1, worker),), {})
    watcher, of_the_server, ready = Watcher(client, "m"), Watcher(client, "ModelService"), Watcher(client, "")
    assert watcher.next() == SERVICE_UNKNOWN
    assert ready.next() == NOT_SERVING, "no routes yet"
    client.owner.route(up)
    assert watcher.next() == SERVING
    assert ready.next() == SERVING
    client.owner.route(up, ModelRoute("other", (), {}, required=False))
    client.owner.send(WorkerDied(worker.incarnation, "killed"))
    assert watcher.next() == NOT_SERVING, "told by the death itself, before the supervisor's next routes"
    assert ready.next() == NOT_SERVING
    client.owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    assert watcher.next() == SERVING
    client.owner.route(replace(up, versions=(version(1, state=ServableState.END),)))
    assert watcher.next() == NOT_SERVING
    client.owner.route()
    assert watcher.next() == SERVICE_UNKNOWN
    assert client.check_refused("m") == "NOT_FOUND"
    assert of_the_server.next() == SERVING


def test_a_drain_tells_the_watchers_and_waits_for_none_of_them(stage: Stage, client: Client) -> None:
    client.owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    watchers = [Watcher(client, service) for service in ("m", "", "unknown")]
    assert [watcher.next() for watcher in watchers] == [SERVING, SERVING, SERVICE_UNKNOWN]
    client.owner.send(DrainFrontend(timeout_s=1000.0))
    assert [watcher.next() for watcher in watchers] == [NOT_SERVING, NOT_SERVING, "UNAVAILABLE"]
    assert [watcher.next() for watcher in watchers[:2]] == ["UNAVAILABLE", "UNAVAILABLE"]
    assert client.owner.wait_exit() == 0


def test_a_lame_duck_says_not_serving_and_goes_on(stage: Stage, client: Client) -> None:
    client.owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    watchers = [Watcher(client, service) for service in ("m", "", "ModelService")]
    assert [watcher.next() for watcher in watchers] == [SERVING] * 3
    client.owner.send(LameDuck())
    assert [watcher.next() for watcher in watchers] == [NOT_SERVING] * 3
    client.owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    assert client.check("m") == NOT_SERVING, "new routes do not bring it back"
    client.owner.send(DrainFrontend(timeout_s=1000.0))
    assert [watcher.next() for watcher in watchers] == ["UNAVAILABLE"] * 3
    assert client.owner.wait_exit() == 0
