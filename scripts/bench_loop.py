"""A bare loop of TensorFlow from outside: a process of `bench_plain_loop` that waits for its turns."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_plan import LoopOrder, Plan
from bench_server import SCRIPTS

# What a load of a server is asked for besides, and a loop has not.
_WITHOUT_GENERATOR: dict[str, Any] = {"failures": 0.0, "wrong": 0.0, "generator_cpu": 0.0, "generator": "none"}


class LoopProcess:
    """One of them; several may be at their turns at the same time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._orders, self._figures = process.stdin, process.stdout

    def begin(self, plan: Plan, threads: int) -> None:
        """Begin a turn; `end` waits for it."""
        self.order(LoopOrder(plan.warmup_s, plan.duration_s, threads))

    def order(self, order: LoopOrder) -> None:
        """The same, by its own words."""
        self._orders.write(order.line())
        self._orders.flush()

    def end(self) -> dict[str, Any]:
        """The figures of the turn."""
        return {**json.loads(self._figures.readline()), **_WITHOUT_GENERATOR}

    def wait_ready(self) -> None:
        """Until the model is loaded."""
        if self._figures.readline() != "ready\n":
            raise SystemExit(f"the loop ended with {self._process.wait()}")


@contextlib.contextmanager
def running(workload: str, version: Path, *cpu: int) -> Iterator[LoopProcess]:
    """One that has loaded `version`, the directory of a model's version; on that CPU alone, if one is named."""
    command = [sys.executable, str(SCRIPTS / "bench_plain_loop.py"), workload, str(version), *map(str, cpu)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            loop = LoopProcess(process)
            loop.wait_ready()
            yield loop
        finally:
            process.kill()
