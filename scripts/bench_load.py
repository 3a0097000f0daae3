"""A load generator in a process of its own: keeps N calls in flight for a while and prints what it saw as JSON.

A closed loop on one grpc.aio channel, of bytes made beforehand, so that it measures the server and as little as can
be of itself; its own share of a CPU is part of what it prints. The first answer is checked. Imports no TensorFlow.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import demo_client
import grpc
from tensorflow_serving.apis import predict_pb2

METHOD = "/tensorflow.serving.PredictionService/Predict"
MODEL = "half_plus_two"
X, Y = [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]


def request_bytes() -> bytes:
    """The one request of the benchmark."""
    raw: bytes = demo_client.predict_request(MODEL, {"x": X}).SerializeToString()
    return raw


def is_right(answer: bytes) -> bool:
    """Whether it is the answer to `request_bytes`."""
    reply = predict_pb2.PredictResponse.FromString(answer)
    return bool(demo_client.values(reply.outputs["y"]) == Y)


def percentiles(latencies_s: list[float]) -> dict[str, float]:
    """Of at least one latency, in microseconds."""
    ordered = sorted(latencies_s)
    return {"p50_us": ordered[len(ordered) // 2] * 1e6, "p99_us": ordered[len(ordered) * 99 // 100] * 1e6}


async def run_load(
    address: str, in_flight: int, warmup_s: float, duration_s: float
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """Requests/s, latencies and failures of `duration_s` after `warmup_s`.

    And the beginning and end of each request counted, by the machine's monotonic clock.
    """
    body = request_bytes()
    spans_s: list[tuple[float, float]] = []
    failures = 0
    measuring_from = time.monotonic() + warmup_s
    until = measuring_from + duration_s

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)
        if not is_right(await call(body, timeout=10)):
            raise RuntimeError(f"{address} gave a wrong answer")

        async def ask() -> None:
            nonlocal failures
            while (started := time.monotonic()) < until:
                try:
                    await call(body, timeout=10)
                except grpc.aio.AioRpcError:
                    failures += 1
                ended = time.monotonic()
                if measuring_from <= started and ended <= until:
                    spans_s.append((started, ended))

        cpu_before_s = time.process_time()
        await asyncio.gather(*(ask() for _ in range(in_flight)))
        cpu_s = time.process_time() - cpu_before_s
    figures = {
        "requests_per_s": len(spans_s) / duration_s,
        **percentiles([ended - started for started, ended in spans_s]),
        "failures": failures,
        "generator_cpu": cpu_s / (warmup_s + duration_s),
    }
    return figures, spans_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--in_flight", type=int, required=True)
    parser.add_argument("--warmup_s", type=float, default=1.0)
    parser.add_argument("--duration_s", type=float, default=3.0)
    parser.add_argument("--raw", type=Path, help="file for the times of each request, as JSON")
    args: Any = parser.parse_args()
    figures, spans_s = asyncio.run(run_load(args.address, args.in_flight, args.warmup_s, args.duration_s))
    if args.raw:
        args.raw.write_text(json.dumps(spans_s), encoding="utf-8")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
