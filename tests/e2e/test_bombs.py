"""Memory bombs: small requests that ask for a lot are refused at little cost, and everybody else is served on."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.frontend_spec import Engine
from tests.e2e.pool import Pool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor

MODELS = ("half_plus_two", "sum", "dtypes")
MIB = 1 << 20
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def pool(models: Path) -> Iterator[Pool]:
    with running_pool(model_config({name: models / name for name in MODELS})) as pool:
        pool.wait_available(*MODELS)
        pool.predict(half_plus_two([1.0]))
        yield pool


def half_plus_two(numbers: list[float]) -> Any:
    return predict_request("half_plus_two", {"x": tensor(numbers, "float32")})


def peak_bytes(pool: Pool) -> dict[int, int]:
    """The most memory that each process of the pool has ever had (VmHWM), by pid."""
    peaks = {}
    for process in pool.processes():
        status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        peaks[process.pid] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return peaks


def cost_of(pool: Pool, attack: Callable[[], None]) -> int:
    """By how much the peak of any one process grew. Its peak is reset before, to what it has now."""
    for process in pool.processes():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="utf-8")
    before = peak_bytes(pool)
    attack()
    after = peak_bytes(pool)
    assert after.keys() == before.keys(), "no process died"
    assert list(pool.predict(half_plus_two([1.0, 2.0])).outputs["y"].float_val) == [2.5, 3.0]
    return max(after[pid] - before[pid] for pid in before)


def test_shapes_without_content(pool: Pool) -> None:
    def attack() -> None:
        for dims in ([1 << 40], [1 << 20, 1 << 20], [1 << 31, 1 << 31], [1 << 62, 2], [1 << 32]):
            proto = tensor([1.0], "float32")
            del proto.tensor_shape.dim[:]
            for dim in dims:
                proto.tensor_shape.dim.add().size = dim
            for values in ([], [1.0]):
                del proto.float_val[:]
                proto.float_val.extend(values)
                code, text = refusal(lambda: pool.predict(predict_request("half_plus_two", {"x": proto})))  # noqa: B023
                assert code is INVALID
                assert text.startswith("tensor parsing error: x"), text

    assert cost_of(pool, attack) < 4 * MIB


def test_nested_brackets(pool: Pool) -> None:
    def attack() -> None:
        for body in (
            '{"instances": ' + "[" * 1_000_000,
            '{"instances": ' + "[" * 1_000_000 + "]" * 1_000_000 + "}",
            '{"inputs": ' + '{"a":' * 1_000_000 + "1" + "}" * 1_000_000 + "}",
            "[" * 1_000_000,
        ):
            reply = pool.post("/v1/models/half_plus_two:predict", body)
            assert reply.status == 400, reply.text[:200]
            assert len(reply.error) < 2000

    assert cost_of(pool, attack) < 64 * MIB


def test_a_gzip_bomb(pool: Pool) -> None:
    packed = gzip.compress(b'{"instances": [' + b" " * (1 << 28) + b"1.0]}", 9)
    assert len(packed) < MIB

    def attack() -> None:
        reply = pool.http("POST", "/v1/models/half_plus_two:predict", packed, {"Content-Encoding": "gzip"})  # type: ignore[arg-type]
        assert reply.status == 413, reply

    assert cost_of(pool, attack) < 64 * MIB


def test_a_gzip_bomb_over_grpc(pool: Pool, engine: str) -> None:
    if engine == Engine.GRPCIO:
        pytest.skip("grpcio unpacks by itself, without such a bound")
    unknown_field = b"\x82\x7d\x80\x80\x80\x80\x01" + bytes(1 << 28)
    body = half_plus_two([1.0]).SerializeToString() + unknown_field
    call = pool.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def attack() -> None:
        code, text = refusal(lambda: call(body, timeout=60.0, compression=grpc.Compression.Gzip))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "bytes of gzip that unpack to more than" in text

    assert cost_of(pool, attack) < 64 * MIB


def test_ten_million_tiny_tensors(pool: Pool) -> None:
    spec = predict_request("half_plus_two", {}).SerializeToString()
    body = spec + b"\x12\x04\x0a\x00\x12\x00" * 10_000_000

    def attack() -> None:
        code, text = refusal(lambda: pool.call_raw("Predict", body))
        assert code is INVALID
        assert "too many fields" in text

    assert cost_of(pool, attack) < 4 * len(body)


def test_ten_million_numbers_are_an_honest_request(pool: Pool) -> None:
    """The same size in one tensor is served: it is the waste that is refused."""
    count = 2_000_000
    body = json.dumps({"instances": [1.0] * count})
    reply = pool.post("/v1/models/half_plus_two:predict", body)
    assert reply.status == 200
    assert reply.json["predictions"] == [2.5] * count
