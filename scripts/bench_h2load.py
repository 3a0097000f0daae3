"""nghttp2's load generator as another one than ours: closed loops of gRPC, where it is installed.

Written in C, it takes less of the machine than ours, and it is nobody's of this project. It knows no gRPC, so that it
cannot tell a failed call by its trailers: but such a call has no message, and the bytes of the messages are counted.
"""

import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bench_figures
import grpc
from bench_http2 import MESSAGE_HEAD
from bench_plan import Plan
from bench_workloads import Workload

_COUNTS = re.compile(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_DATA = re.compile(r"traffic: .*\((\d+)\) data")
_HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 10S")


def program() -> str | None:
    return shutil.which("h2load")


def run(address: str, workload: Workload, plan: Plan) -> dict[str, float]:
    """The figures of `bench_load`. Raises SystemExit when the server does not answer, or wrongly."""
    body = workload.request()
    answer_bytes = _answer_bytes(address, workload, body)
    path = program()
    assert path is not None
    with tempfile.TemporaryDirectory(prefix="mp-h2load-") as folder:
        request, log = Path(folder) / "request", Path(folder) / "log"
        request.write_bytes(MESSAGE_HEAD.pack(0, len(body)) + body)
        connections = min(plan.connections, plan.in_flight)
        command = [path, f"-c{connections}", f"-m{plan.in_flight // connections}", f"-D{plan.duration_s * 1000:.0f}ms"]
        command += [f"--warm-up-time={plan.warmup_s * 1000:.0f}ms", f"-d{request}", f"--log-file={log}"]
        command += [word for header in _HEADERS for word in ("-H", header)]
        before_s = _children_cpu_s()
        limit_s = plan.warmup_s + plan.duration_s + 60
        command.append(f"http://{address}{workload.path}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        if done.returncode:
            raise SystemExit(f"h2load ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        cpu_s = _children_cpu_s() - before_s
        latencies_s = list(_latencies_s(log))
    return _figures(done.stdout, latencies_s, answer_bytes, plan, cpu_s)


def _answer_bytes(address: str, workload: Workload, body: bytes) -> int:
    """How long a right answer is with its head, by asking once."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        try:
            answer: bytes = channel.unary_unary(workload.path)(body, timeout=30)
        except grpc.RpcError as error:
            raise SystemExit(f"{address} does not answer {workload.name}: {error}") from error
    if not workload.is_right_message(answer):
        raise SystemExit(f"{address} gave a wrong answer to {workload.name}")
    return MESSAGE_HEAD.size + len(answer)


def _latencies_s(log: Path) -> Iterator[float]:
    """Of the requests that were answered in the measured time."""
    with log.open("r", encoding="ascii") as lines:
        for line in lines:
            _, status, took_us = line.split("\t")[:3]
            if status == "200":
                yield int(took_us) / 1e6


def _figures(words: str, latencies_s: list[float], answer_bytes: int, plan: Plan, cpu_s: float) -> dict[str, float]:
    counts, data = _COUNTS.search(words), _DATA.search(words)
    if counts is None or data is None:
        raise SystemExit(f"h2load says what cannot be read:\n{words}")
    answers = len(latencies_s)
    # Answers that were halfway in at a border of the measured time are counted on one side only.
    missing = answers - int(data[1]) / answer_bytes - plan.in_flight
    return {
        "requests_per_s": answers / plan.duration_s,
        **bench_figures.latency_figures(latencies_s),
        "answers": answers * (1 + plan.warmup_s / plan.duration_s),
        "failures": float(counts[5]) + float(counts[6]),
        "wrong": max(0.0, float(round(missing))),
        "generator_cpu": cpu_s / (plan.warmup_s + plan.duration_s),
        "late_p99_us": 0.0,
    }


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
