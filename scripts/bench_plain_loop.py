"""TensorFlow without any server: one process that calls a model again and again.

`bench_plain_loop.py WORKLOAD DIR [CPU]`: on that CPU alone. Each line of its standard input is a warm-up and a duration
in seconds, a number of threads that loop, how many requests' rows a call takes, and on how many arrays the calls take
turns; for each it prints figures as JSON, of requests, but for the latencies, which are the calls'. The call is that of
the pool's workers and of the plain server; its input is there already.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import bench_figures
import bench_inputs
import numpy as np
from bench_plain_server import PlainModel
from bench_plan import LoopOrder

INPUTS: dict[str, Callable[[], Any]] = {
    "tiny": bench_inputs.numbers,
    "mlp": bench_inputs.features,
    "image": bench_inputs.picture,
    "conv": lambda: bench_inputs.picture(bench_inputs.CONV_PICTURE),
    "string": lambda: bench_inputs.words().astype(object),
}


def loop(model: PlainModel, inputs: Sequence[Any], measured_from: float, until: float) -> list[float]:
    """Latencies of the calls that ended in the measured time."""
    latencies_s = []
    turns = itertools.cycle(inputs)
    now = time.monotonic()
    while now < until:
        began = now
        model.run(next(turns))
        now = time.monotonic()
        if measured_from <= now <= until:
            latencies_s.append(now - began)
    return latencies_s


def figures(model: PlainModel, inputs: Sequence[Any], order: LoopOrder) -> dict[str, float]:
    measured_from = time.monotonic() + order.warmup_s
    until = measured_from + order.duration_s
    began_cpu_s = time.process_time()
    with futures.ThreadPoolExecutor(order.threads) as pool:
        loops = [pool.submit(loop, model, inputs, measured_from, until) for _ in range(order.threads)]
    latencies_s = [each for done in loops for each in done.result()]
    # The warm-up's calls took as much CPU each as the others.
    cpu_s = (time.process_time() - began_cpu_s) * order.duration_s / (order.warmup_s + order.duration_s)
    requests = len(latencies_s) * order.requests
    return {
        "requests_per_s": requests / order.duration_s,
        "cpu_us": cpu_s / max(1, requests) * 1e6,
        **bench_figures.latency_figures(latencies_s),
    }


def main() -> int:
    workload, directory, *cpus = sys.argv[1:]
    if cpus:
        os.sched_setaffinity(0, map(int, cpus))  # before TensorFlow makes its threads
    model = PlainModel(Path(directory))
    x = INPUTS[workload]()
    model.run(x)
    print("ready", flush=True)
    for line in sys.stdin:
        order = LoopOrder.read(line)
        rows = np.concatenate([x] * order.requests)
        inputs = [rows.copy() for _ in range(order.arrays)]
        print(json.dumps(figures(model, inputs, order)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
