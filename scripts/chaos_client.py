"""The clients of a chaos scene, in a process of their own: closed loops that call models until standard input ends.

`chaos_client.py HOST:PORT FILE MODEL:CLIENTS[:PAUSE_S] ...` writes what each call saw to FILE, as JSON: for each model
a list of [began, ended, code, text, right], times on CLOCK_MONOTONIC, which all processes share. Each request carries
a number that no other has; its answer is right when it carries the same. Prints a line when every client has begun.
"""

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import grpc
import grpc.aio

from modelpool.frontend.client import protos

PREDICT = "/tensorflow.serving.PredictionService/Predict"
TIMEOUT_S = 30.0
# A client of its own connection; a server that has gone is looked for again soon.
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_NUMBERS = itertools.count(1)

Seen = list[tuple[float, float, str, str, bool]]


def request_bytes(model: str, number: int) -> bytes:
    request = protos.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = protos.DataType.Value("DT_INT64")
    tensor.tensor_shape.dim.add(size=1)
    tensor.int64_val.append(number)
    raw: bytes = request.SerializeToString()
    return raw


def is_right(answer: bytes, number: int) -> bool:
    """Whether it carries the number, and nothing else."""
    return list(protos.PredictResponse.FromString(answer).outputs["y"].int64_val) == [number]


async def client(target: str, model: str, pause_s: float, seen: Seen, stop: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        predict = channel.unary_unary(PREDICT)
        while not stop.is_set():
            number = next(_NUMBERS)
            began_s = time.monotonic()
            code, text, right = "OK", "", False
            try:
                right = is_right(await predict(request_bytes(model, number), timeout=TIMEOUT_S), number)
            except grpc.aio.AioRpcError as error:
                code, text = error.code().name, error.details() or ""
            seen.append((began_s, time.monotonic(), code, text, right))
            if pause_s or code != "OK":
                await asyncio.sleep(pause_s or 0.005)


async def run(target: str, models: list[str]) -> dict[str, Seen]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    seen: dict[str, Seen] = {}
    tasks: list[asyncio.Task[Any]] = []
    for each in models:
        model, count, pause_s = (*each.split(":"), "0")[:3]
        calls = seen.setdefault(model, [])
        tasks += [asyncio.create_task(client(target, model, float(pause_s), calls, stop)) for _ in range(int(count))]
    while not all(seen.values()):  # noqa: ASYNC110 - calls are many, and looked at once
        await asyncio.sleep(0.01)
    print("running", flush=True)
    await asyncio.gather(*tasks)
    return seen


def main() -> None:
    target, path, *models = sys.argv[1:]
    seen = asyncio.run(run(target, models))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main()
