"""A switch from one version to the next and back, under load: nobody notices but by the answers."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

CLIENTS_PER_PROTOCOL = 4
SWITCH_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Which version answered, and when the request began and ended (monotonic seconds)."""

    version: int
    began_s: float
    ended_s: float


@dataclass
class Client:
    """Asks without pause; `ask` is the version that answered, or raises with what went wrong."""

    ask: Callable[[], int]
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                version = self.ask()
            except (grpc.RpcError, OSError, AssertionError) as error:
                self.failures.append(str(error))
            else:
                self.answers.append(Answer(version, began_s, time.monotonic()))

    def has_seen(self, version: int, since_s: float) -> bool:
        return any(each.version == version and each.began_s >= since_s for each in self.answers[-100:])


def grpc_client(pool: Pool, dense: Any) -> Callable[[], int]:
    request = predict_request("dense", {"inputs": tensor(dense["inputs"])})

    def ask() -> int:
        reply = pool.predict(request)
        version: int = reply.model_spec.version.value
        wanted = [pytest.approx(row, abs=1e-5) for row in dense["answers"][str(version)]]
        assert values(reply.outputs["output_0"]) == wanted
        return version

    return ask


def rest_client(pool: Pool, dense: Any) -> Callable[[], int]:
    """REST does not name the version, but each version's answers are its own."""
    body = json.dumps({"inputs": dense["inputs"]})

    def ask() -> int:
        reply = pool.post("/v1/models/dense:predict", body)
        assert reply.status == 200, reply
        matching = [
            int(version)
            for version, answers in dense["answers"].items()
            if reply.json["outputs"] == [pytest.approx(row, abs=1e-5) for row in answers]
        ]
        assert len(matching) == 1, (matching, reply)
        return matching[0]

    return ask


def switched(pool: Pool, clients: list[Client], states: dict[int, str], version: int) -> float:
    """Wait until the versions have these states and every client has seen `version` since; when that was first so."""
    eventually(lambda: pool.versions("dense") == states, SWITCH_WITHIN_S, f"dense is {states}")
    since_s = time.monotonic()
    eventually(lambda: all(client.has_seen(version, since_s) for client in clients), SWITCH_WITHIN_S, "all see it")
    return since_s


def test_a_switch_and_back_under_load(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    dense = json.loads((models / "expected.json").read_text("utf-8"))["dense"]
    base = tmp_path / "dense"
    shutil.copytree(models / "dense" / "1", base / "1")
    shutil.copytree(models / "dense" / "2", tmp_path / "new")
    pool = start_pool(model_config({"dense": base}))
    pool.wait_available("dense")
    assert pool.stub() is not None  # the one channel, made before the threads share it
    makers = [grpc_client] * CLIENTS_PER_PROTOCOL + [rest_client] * CLIENTS_PER_PROTOCOL
    clients = [Client(make(pool, dense)) for make in makers]
    with beside(*(client.run for client in clients)):
        switched(pool, clients, {1: "AVAILABLE"}, 1)
        renamed_s = time.monotonic()
        (tmp_path / "new").rename(base / "2")
        two_s = switched(pool, clients, {2: "AVAILABLE", 1: "END"}, 2)
        removed_s = time.monotonic()
        (base / "2").rename(tmp_path / "old")
        back_s = switched(pool, clients, {2: "END", 1: "AVAILABLE"}, 1)
    assert [client.failures for client in clients] == [[]] * len(clients)
    answers = [answer for client in clients for answer in client.answers]
    assert {answer.version for answer in answers} == {1, 2}
    assert {answer.version for answer in answers if answer.ended_s < renamed_s} == {1}
    assert {answer.version for answer in answers if answer.began_s > two_s and answer.ended_s < removed_s} == {2}
    assert {answer.version for answer in answers if answer.began_s > back_s} == {1}
    for client in clients:
        in_order = [answer.version for answer in client.answers]
        assert sum(before != after for before, after in pairwise(in_order)) == 2
