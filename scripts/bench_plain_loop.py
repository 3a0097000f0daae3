"""TensorFlow without any server: one process that calls a model again and again.

`bench_plain_loop.py WORKLOAD DIR [CPU]`: on that CPU alone. Each line of its standard input is a warm-up and a duration
in seconds and a number of threads that loop; for each it prints figures as JSON. The call is that of the pool's workers
and of the plain server; the input is an array that is there already.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import bench_figures
import bench_inputs
from bench_plain_server import PlainModel

INPUTS: dict[str, Callable[[], Any]] = {
    "tiny": bench_inputs.numbers,
    "mlp": bench_inputs.features,
    "image": bench_inputs.picture,
    "conv": lambda: bench_inputs.picture(bench_inputs.CONV_PICTURE),
    "string": lambda: bench_inputs.words().astype(object),
}


def loop(model: PlainModel, x: Any, measured_from: float, until: float) -> list[float]:
    """Latencies of the calls that ended in the measured time."""
    latencies_s = []
    now = time.monotonic()
    while now < until:
        began = now
        model.run(x)
        now = time.monotonic()
        if measured_from <= now <= until:
            latencies_s.append(now - began)
    return latencies_s


def figures(model: PlainModel, x: Any, warmup_s: float, duration_s: float, threads: int) -> dict[str, float]:
    measured_from = time.monotonic() + warmup_s
    until = measured_from + duration_s
    with futures.ThreadPoolExecutor(threads) as pool:
        loops = [pool.submit(loop, model, x, measured_from, until) for _ in range(threads)]
    latencies_s = [each for done in loops for each in done.result()]
    return {"requests_per_s": len(latencies_s) / duration_s, **bench_figures.latency_figures(latencies_s)}


def main() -> int:
    workload, directory, *cpus = sys.argv[1:]
    if cpus:
        os.sched_setaffinity(0, map(int, cpus))  # before TensorFlow makes its threads
    model = PlainModel(Path(directory))
    x = INPUTS[workload]()
    model.run(x)
    print("ready", flush=True)
    for line in sys.stdin:
        warmup_s, duration_s, threads = line.split()
        print(json.dumps(figures(model, x, float(warmup_s), float(duration_s), int(threads))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
