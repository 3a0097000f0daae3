"""Spoiled requests of every kind: no worker dies, no request hangs, every answer has a sensible code.

The suite runs a short form; `scripts/fuzz` runs 100,000 bodies.
"""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.mutations import Call, grpc_corpus, rest_corpus, spoiled
from tests.e2e.pool import CALL_WITHIN_S, Pool, model_config, running_pool
from tests.e2e.tensor_proto import tensor

MODELS = ("half_plus_two", "sum", "dtypes")
_BATCH = 50
_THREADS = 4
_GRPC_CODES = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
    }
)
# INTERNAL is for bytes that are no message, as a C++ gRPC server has it, and never for a fault of ours.
_UNPARSABLE = ("Malformed request", "Failed to parse tensorflow.serving.")
_HTTP_CODES = frozenset({200, 400, 404, 413, 501})
_SAMPLES = [
    ("float32", tensor([[1.0, 2.5], [0.0, -1.0]], "float32")),
    ("float64", tensor([1e300], "float64", content=True)),
    ("int64", tensor([1, 2, 3], "int64")),
    ("uint8", tensor([1, 255], "uint8", content=True)),
    ("string", tensor([b"a", b"\x00\xff", b""], "string")),
    ("bool", tensor([True, False], "bool")),
    ("complex64", tensor([1 + 2j], "complex64")),
    ("bfloat16", tensor([1.5], "bfloat16")),
]


@pytest.fixture(scope="module")
def fuzzed(models: Path) -> Iterator[Pool]:
    with running_pool(model_config({name: models / name for name in MODELS})) as pool:
        pool.wait_available(*MODELS)
        yield pool


def _fuzz(pool: Pool, corpus: list[Call], bodies: int, answer: Callable[[list[Call]], list[str]]) -> None:
    """Send `bodies` spoiled calls, a batch at a time; every one is answered in time and as it should be."""
    workers = _workers(pool)

    @settings(
        max_examples=max(1, bodies // _BATCH),
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failing batch says which call it was; making it smaller would take for ever
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(spoiled(corpus), min_size=_BATCH, max_size=_BATCH))
    def run(calls: list[Call]) -> None:
        complaints = answer(calls)
        assert not complaints, "\n".join(complaints)

    run()
    assert _workers(pool) == workers, "a worker died"
    for sign in ("Traceback", "request failed", "handler failed"):
        assert sign not in pool.log, pool.log[pool.log.index(sign) :][:3000]


def _workers(pool: Pool) -> list[tuple[str, int]]:
    """Every worker that lives, by model and incarnation."""
    return [
        (model["name"], worker["incarnation"])
        for model in pool.status()["models"]
        for version in model["versions"]
        for worker in version["workers"]
    ]


def test_spoiled_protobufs(fuzzed: Pool, fuzz_bodies: int) -> None:
    def answer(calls: list[Call]) -> list[str]:
        sent = [fuzzed.channel.unary_unary(call.target).future(call.body, timeout=CALL_WITHIN_S) for call in calls]
        return [complaint for call, reply in zip(calls, sent, strict=True) if (complaint := _judge_grpc(call, reply))]

    _fuzz(fuzzed, grpc_corpus(_SAMPLES), fuzz_bodies, answer)


def _judge_grpc(call: Call, reply: grpc.Future) -> str:
    """What is wrong with the answer, "" if nothing is."""
    code = reply.code()  # waits for the answer
    text = reply.details() or ""
    if code not in _GRPC_CODES or (code is grpc.StatusCode.INTERNAL and not text.startswith(_UNPARSABLE)):
        return f"{call}: {code} {text}"
    return ""


def test_spoiled_json(fuzzed: Pool, fuzz_bodies: int) -> None:
    def answer(calls: list[Call]) -> list[str]:
        return [complaint for part in threads.map(partial(_judge_rest, fuzzed), _parts(calls)) for complaint in part]

    with ThreadPoolExecutor(_THREADS) as threads:
        _fuzz(fuzzed, rest_corpus(), fuzz_bodies, answer)


def _parts(calls: list[Call]) -> list[list[Call]]:
    return [calls[start::_THREADS] for start in range(_THREADS)]


def _judge_rest(pool: Pool, calls: list[Call]) -> list[str]:
    """What is wrong with the answers to calls that go one after the other over one connection."""
    complaints = []
    connection = http.client.HTTPConnection("127.0.0.1", pool.rest_port, timeout=CALL_WITHIN_S)
    with contextlib.closing(connection):
        for call in calls:
            connection.request("POST", call.target, call.body, {"Content-Encoding": "gzip"} if call.gzipped else {})
            reply = connection.getresponse()
            body = reply.read()
            if reply.status not in _HTTP_CODES or (reply.status != 200 and list(json.loads(body)) != ["error"]):
                complaints.append(f"{call}: {reply.status} {body!r}")
    return complaints
