"""Tensors of up to 64 MB both ways, through the pool's shared memory: exact, and nothing of it stays behind."""

import contextlib
import http.client
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, running_pool

WITHIN_S = 60.0
MB = 1_000_000
PROTOBUF = "application/x-protobuf"
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def pool(models: Path, engine: str) -> Iterator[Pool]:
    with running_pool(model_config({"dtypes": models / "dtypes"}), f"--frontend={engine}") as started:
        started.wait_available("dtypes")
        yield started


@contextlib.contextmanager
def client(pool: Pool) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{pool.grpc_port}", options) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def floats(seed: int, size_bytes: int) -> Floats:
    """Numbers, so that no bit of them may change without notice."""
    return np.random.default_rng(seed).random(size_bytes // 4, np.float32)


def asking(sent: Floats) -> Any:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=sent.tobytes())
    tensor.tensor_shape.dim.add().size = len(sent)
    return predict_request("dtypes", {"x": tensor}, signature="float32")


def is_answer(reply: Any, sent: Floats) -> bool:
    return np.array_equal(np.array(reply.outputs["y"].float_val, np.float32), sent)


def by_rest(pool: Pool, request: bytes) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", pool.rest_port, timeout=WITHIN_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/models/dtypes:predict", request, {"Content-Type": PROTOBUF})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body[:1000]
        return predict_pb2.PredictResponse.FromString(body)


def shared_bytes(pool: Pool) -> dict[str, int]:
    """What the pool has of shared memory for payloads, by link."""
    found = {}
    for link in pool.runtime_dir.glob("m[wf]*"):
        with contextlib.suppress(FileNotFoundError):
            found[link.name] = os.stat(link).st_blocks * 512
    return found


@contextlib.contextmanager
def most_shared(pool: Pool) -> Iterator[dict[str, int]]:
    """The most that was seen, by link, from here to the end of the block."""
    most: dict[str, int] = {}

    def look(stop: threading.Event) -> None:
        while not stop.wait(0.002):
            for name, used in shared_bytes(pool).items():
                most[name] = max(used, most.get(name, 0))

    with beside(look):
        yield most


def nothing_shared(pool: Pool) -> bool:
    return sum(shared_bytes(pool).values()) < 5 * MB


def test_up_to_64_mb_both_ways_and_all_memory_comes_back(pool: Pool) -> None:
    with client(pool) as stub, most_shared(pool) as most:
        for size in (120_000, 140_000, 600_000, 64 * MB):
            sent = floats(size, size)
            request = asking(sent)
            assert is_answer(stub.Predict(request, timeout=WITHIN_S), sent)
            assert is_answer(by_rest(pool, request.SerializeToString()), sent)
    assert sorted(name[:2] for name in most) == ["mf", "mw"]
    # Of requests the last one, too: what this model answers lies where the request does, and is kept for a while.
    assert all(64 * MB < used < 140 * MB for used in most.values()), most
    eventually(lambda: nothing_shared(pool), WITHIN_S, "the memory comes back")


def test_a_worker_killed_under_large_load_costs_no_answer_and_no_memory(pool: Pool) -> None:
    stop = threading.Event()
    answered = [0] * 4

    def ask(number: int) -> None:
        sent = floats(number, 2 * MB + 4 * number)
        request = asking(sent)
        raw = request.SerializeToString()
        with client(pool) as stub:
            while not stop.is_set():
                reply = by_rest(pool, raw) if number % 2 else stub.Predict(request, timeout=WITHIN_S)
                assert is_answer(reply, sent)
                answered[number] += 1

    with ThreadPoolExecutor(len(answered)) as clients:
        calls = [clients.submit(ask, number) for number in range(len(answered))]
        try:
            for _ in range(2):
                before, victim = list(answered), pool.worker("dtypes")["pid"]
                eventually(
                    lambda before=before: all(now > then + 1 for now, then in zip(answered, before, strict=True)),
                    WITHIN_S,
                    "answers to everybody",
                )
                os.kill(victim, signal.SIGKILL)
                eventually(
                    lambda victim=victim: pool.worker("dtypes")["pid"] not in (None, victim), WITHIN_S, "another worker"
                )
            before = list(answered)
            eventually(lambda: all(now > then + 1 for now, then in zip(answered, before, strict=True)), WITHIN_S)
        finally:
            stop.set()
        for call in calls:
            call.result(WITHIN_S)
    eventually(lambda: len(shared_bytes(pool)) == 2 and nothing_shared(pool), WITHIN_S, "the memory comes back")
