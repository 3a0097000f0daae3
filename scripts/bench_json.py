"""CPU time of a worker's JSON: bodies to tensors, and tensors to replies, in this process and without a server.

CPU time, not the clock's, so that what else the machine does hardly shows. Bodies come as a worker gets big ones, as a
memoryview.
"""

import base64
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bench_figures
import bench_inputs
import numpy as np
from tensorflow.core.framework import types_pb2

from modelpool.worker import rest_json
from modelpool.worker.rest_json import Layout

_FLOAT, _DOUBLE, _STRING = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_STRING
_INT64, _BOOL = types_pb2.DT_INT64, types_pb2.DT_BOOL
_TURN_S = 0.02
_TURNS = 9


def measure() -> list[dict[str, Any]]:
    """One figure for each kind of body and reply, as a JSON document."""
    found = [_figure(f"in: {name}", len(body), _reading(body, inputs)) for name, (body, inputs) in _bodies().items()]
    for name, (outputs, layout) in _replies().items():
        write = _writing(outputs, layout)
        found.append(_figure(f"out: {name}", len(write()), write))
    return found


def _figure(name: str, size: int, work: Callable[[], object]) -> dict[str, Any]:
    """The median over some turns, each of as many runs as take a while."""
    work()
    runs = 1
    turns: list[float] = []
    while len(turns) < _TURNS:
        began_s = time.process_time()
        for _ in range(runs):
            work()
        took_s = time.process_time() - began_s
        if took_s < _TURN_S:
            runs *= 2
        else:
            turns.append(took_s / runs)
    return {"what": name, "bytes": size, "cpu_us": statistics.median(turns) * 1e6}


def _reading(body: bytes, inputs: Mapping[str, int]) -> Callable[[], object]:
    received: Any = memoryview(body)
    return lambda: rest_json.parse(received).tensors(inputs)


def _writing(outputs: Mapping[str, tuple[int, Any]], layout: Layout) -> Callable[[], bytes]:
    return lambda: rest_json.reply(outputs, layout)


def _bodies() -> dict[str, tuple[bytes, dict[str, int]]]:
    picture = np.asarray(bench_inputs.picture(), np.float64).round(6)
    holed = np.where(picture > np.quantile(picture, 0.9), np.nan, picture)
    words = [{"b64": base64.b64encode(b"sixteen strings of some length").decode()}] * 16
    mixed = [{"a": [1.0, 2.5], "b": "text", "c": 3, "d": True}] * 100
    one: dict[str, int] = {"x": _FLOAT}
    return {
        "picture, nested": (_json({"instances": picture.tolist()}), one),
        "picture, as an object": (_json({"instances": [{"x": picture[0].tolist()}]}), one),
        "picture, flat": (_json({"instances": [picture.ravel().tolist()]}), one),
        "picture of whole numbers": (_json({"inputs": (picture * 255).astype(int).tolist()}), {"x": _INT64}),
        "picture with NaN": (_json({"instances": holed.tolist()}), one),
        "1 MB of base64": (
            _json({"instances": [{"b64": base64.b64encode(bytes(1 << 20)).decode()}]}),
            {"x": _STRING},
        ),
        "16 strings as base64": (_json({"instances": words}), {"x": _STRING}),
        "100 objects of 4 kinds": (_json({"instances": mixed}), {"a": _FLOAT, "b": _STRING, "c": _INT64, "d": _BOOL}),
        "3 numbers": (_json({"instances": [[1.0, 2.0, 5.0]]}), one),
    }


def _json(document: Any) -> bytes:
    return json.dumps(document).encode("ascii")


def _replies() -> dict[str, tuple[dict[str, tuple[int, Any]], Layout]]:
    random = np.random.default_rng(1)
    numbers = random.random((1, 224, 224, 3), np.float32)
    odd = np.where(numbers > 0.9, np.float32(np.nan), numbers)
    chances = np.exp(random.normal(-12, 3, numbers.shape)).astype(np.float32)
    of_rows: dict[str, tuple[int, Any]] = {
        "150,528 floats, nested": (_FLOAT, numbers),
        "150,528 floats, flat": (_FLOAT, numbers.reshape(1, -1)),
        "150,528 floats of 3 digits": (_FLOAT, numbers.round(3)),
        "150,528 floats, a tenth NaN": (_FLOAT, odd),
        "150,528 small probabilities": (_FLOAT, chances),
        "150,528 doubles": (_DOUBLE, random.random(numbers.shape)),
        "150,528 whole numbers": (_INT64, random.integers(-(10**9), 10**9, numbers.shape)),
        "3 floats": (_FLOAT, numbers[:, 0, 0]),
    }
    replies = {name: ({"y": output}, Layout.ROW) for name, output in of_rows.items()}
    return {**replies, "150,528 floats, as `outputs`": ({"y": (_FLOAT, numbers)}, Layout.COLUMNAR)}


def print_report(found: Sequence[Mapping[str, Any]]) -> None:
    """The table that a person reads."""
    rows = [[each["what"], f"{each['bytes']:,}", f"{each['cpu_us']:,.1f}"] for each in found]
    print(bench_figures.table(("JSON", "bytes", "CPU us"), rows))
