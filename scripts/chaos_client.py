"""The clients of a chaos scene, in a process of their own, which call models until standard input ends.

`chaos_client.py HOST:PORT FILE MODEL:CLIENTS:PAUSE_S:RATE ...`: closed loops with a pause, or, where RATE is not 0, so
many calls a second, whatever has become of the earlier ones. What each call saw is written to FILE, as JSON: for each
model a list of [began, ended, code, text, right], times on CLOCK_MONOTONIC, which all processes share. Each request
carries a number that no other has; its answer is right when it carries the same. Prints a line when all have begun.
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


def request_bytes(model: str, *numbers: int) -> bytes:
    request = protos.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = protos.DataType.Value("DT_INT64")
    tensor.tensor_shape.dim.add(size=len(numbers))
    tensor.int64_val.extend(numbers)
    raw: bytes = request.SerializeToString()
    return raw


def is_right(answer: bytes, number: int) -> bool:
    """Whether it carries the number, and nothing else."""
    return list(protos.PredictResponse.FromString(answer).outputs["y"].int64_val) == [number]


async def call(predict: Any, model: str, seen: Seen) -> bool:
    """One call; whether it was answered."""
    number = next(_NUMBERS)
    began_s = time.monotonic()
    code, text, right = "OK", "", False
    try:
        right = is_right(await predict(request_bytes(model, number), timeout=TIMEOUT_S), number)
    except grpc.aio.AioRpcError as error:
        code, text = error.code().name, error.details() or ""
    seen.append((began_s, time.monotonic(), code, text, right))
    return code == "OK"


async def closed_loop(target: str, model: str, pause_s: float, seen: Seen, stop: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        predict = channel.unary_unary(PREDICT)
        while not stop.is_set():
            answered = await call(predict, model, seen)
            if pause_s or not answered:
                await asyncio.sleep(pause_s or 0.005)


async def open_loop(target: str, model: str, rate: float, seen: Seen, stop: asyncio.Event) -> None:
    """Calls at fixed times; one that is late is made at once, so that the rate is kept."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel, asyncio.TaskGroup() as calls:
        predict = channel.unary_unary(PREDICT)
        due_s = time.monotonic()
        while not stop.is_set():
            calls.create_task(call(predict, model, seen))
            due_s += 1 / rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def run(target: str, models: list[str]) -> dict[str, Seen]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    seen: dict[str, Seen] = {}
    tasks: list[asyncio.Task[Any]] = []
    for each in models:
        model, count, pause_s, rate = each.split(":")
        calls = seen.setdefault(model, [])
        if float(rate):
            tasks.append(asyncio.create_task(open_loop(target, model, float(rate), calls, stop)))
            continue
        tasks += [
            asyncio.create_task(closed_loop(target, model, float(pause_s), calls, stop)) for _ in range(int(count))
        ]
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
