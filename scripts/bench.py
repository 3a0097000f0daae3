"""The pool beside a plain single-process server, on the same model, in one run: speed, start, memory.

Both run all the time and are measured in turn (pool, plain, pool, plain, ...), so that whatever else the machine
does hits both; the medians are printed. All on loopback; the load generator is a process of its own on the same
machine and takes its share of the CPUs. Runs in the environment that `environment.py` makes.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import bench_load
import bench_memory
import grpc
from bench_memory import Memory

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".demo" / "models"
SCRIPTS = ROOT / "scripts"
IN_FLIGHT = (1, 32)
WARMUP_S = 1.0
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
POLL_S = 0.005
MIB = 1024 * 1024


@dataclass(slots=True)
class Server:
    """A server under measurement: started by `command` below, stopped at the end of `running`."""

    name: str
    port: int
    command: list[str]
    log: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    first_answer_s: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From the first right answer on; `first_answer_s` is how long that took."""
        started = time.monotonic()
        environment = {**os.environ, bench_memory.MARK: self.mark, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=ROOT, env=environment)
        try:
            self._wait_for_an_answer(process, started)
            self.first_answer_s = time.monotonic() - started
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_for_an_answer(self, process: subprocess.Popen[bytes], started: float) -> None:
        while not self._answers():
            if process.poll() is not None or time.monotonic() - started > START_WITHIN_S:
                tail = self.log.read_text("utf-8", "replace")[-3000:]
                raise SystemExit(f"{self.name} does not answer (exit code {process.returncode}):\n{tail}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)

    def _answers(self) -> bool:
        """Whether a call succeeds; a new channel each time, for a channel waits a second after a failed connect."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                answer = channel.unary_unary(bench_load.METHOD)(bench_load.request_bytes(), timeout=10)
            except grpc.RpcError:
                return False
        return bench_load.is_right(answer)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def pool_server(scratch: Path, models: list[str]) -> tuple[Server, int]:
    """The pool, and its REST port."""
    port, rest_port = free_port(), free_port()
    modelpool = Path(sys.executable).parent / "modelpool"
    if models == [bench_load.MODEL]:
        what = [f"--model_name={bench_load.MODEL}", f"--model_base_path={MODELS / bench_load.MODEL}"]
    else:
        what = [f"--model_config_file={MODELS / 'models.config'}"]
    flags = [f"--port={port}", f"--rest_api_port={rest_port}", f"--runtime_dir={scratch / f'run-{port}'}"]
    return Server("pool", port, [str(modelpool), "serve", *flags, *what], scratch / "pool.log"), rest_port


def plain_server(scratch: Path) -> Server:
    port = free_port()
    (version,) = (MODELS / bench_load.MODEL).iterdir()
    command = [sys.executable, str(SCRIPTS / "bench_plain_server.py"), str(version), str(port)]
    return Server("plain", port, command, scratch / "plain.log")


def measure_starts(scratch: Path, times: int) -> dict[str, float]:
    """Seconds to the first answer, and of `import tensorflow` alone; medians, taken in turn, after one unmeasured."""
    seen: dict[str, list[float]] = {"import tensorflow": [], "pool": [], "plain": []}
    for i in range(times + 1):
        started = time.monotonic()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, env=environment, capture_output=True)
        took = {"import tensorflow": time.monotonic() - started}
        for server in (pool_server(scratch, [bench_load.MODEL])[0], plain_server(scratch)):
            with server.running():
                took[server.name] = server.first_answer_s
        if i:
            for name, seconds in took.items():
                seen[name].append(seconds)
    return {name: statistics.median(values) for name, values in seen.items()}


def measure_load(servers: list[Server], rounds: int, duration_s: float) -> dict[str, Any]:
    """By in-flight count and server: every round and the medians."""
    results: dict[str, Any] = {}
    for in_flight in IN_FLIGHT:
        taken: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
        for i in range(rounds):
            for server in servers:
                taken[server.name].append(_one_load(server, in_flight, duration_s))
            rates = ", ".join(f"{name} {each[-1]['requests_per_s']:.0f}/s" for name, each in taken.items())
            print(f"  {in_flight} in flight, round {i + 1} of {rounds}: {rates}", flush=True)
        results[str(in_flight)] = {
            name: {
                "median": {key: statistics.median(each[key] for each in all_rounds) for key in all_rounds[0]},
                "rounds": all_rounds,
            }
            for name, all_rounds in taken.items()
        }
    return results


def _one_load(server: Server, in_flight: int, duration_s: float) -> dict[str, float]:
    command = [sys.executable, str(SCRIPTS / "bench_load.py"), f"--address=127.0.0.1:{server.port}"]
    command += [f"--in_flight={in_flight}", f"--warmup_s={WARMUP_S}", f"--duration_s={duration_s}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=duration_s + 60)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure_memory(scratch: Path) -> dict[str, list[Memory]]:
    """Of each kind of server by itself, after some load: two at once would share TensorFlow's pages."""
    memory = {}
    one, rest_port = pool_server(scratch, [bench_load.MODEL])
    with one.running():
        _one_load(one, max(IN_FLIGHT), WARMUP_S)
        memory["pool, one model"] = _pool_memory(one, rest_port)
    plain = plain_server(scratch)
    with plain.running():
        _one_load(plain, max(IN_FLIGHT), WARMUP_S)
        pids = bench_memory.marked_processes(plain.mark)
        memory["plain, one model"] = bench_memory.measure(pids, dict.fromkeys(pids, "plain"))
    every, rest_port = pool_server(scratch, ["demo", "dense", bench_load.MODEL])
    with every.running():
        _one_load(every, max(IN_FLIGHT), WARMUP_S)
        memory["pool, all demo models"] = _pool_memory(every, rest_port)
    return memory


def _pool_memory(server: Server, rest_port: int) -> list[Memory]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", rest_port, timeout=30)) as connection:
        connection.request("GET", "/pool/v1/status")
        status = json.loads(connection.getresponse().read())
    return bench_memory.measure(bench_memory.marked_processes(server.mark), bench_memory.roles(status))


def measure_all(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything, as one JSON document."""
    print("Start to the first answer ...", flush=True)
    starts = measure_starts(scratch, args.starts)
    pool, plain = pool_server(scratch, [bench_load.MODEL])[0], plain_server(scratch)
    print("Throughput and latency ...", flush=True)
    with pool.running(), plain.running():
        load = measure_load([pool, plain], args.rounds, args.duration_s)
    print("Memory ...", flush=True)
    memory = measure_memory(scratch)
    return {
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("modelpool", "tensorflow", "grpcio")},
        },
        "options": {"rounds": args.rounds, "duration_s": args.duration_s, "starts": args.starts},
        "start_s": starts,
        "load": load,
        "memory": {name: [each.to_dict() for each in processes] for name, processes in memory.items()},
    }


def print_report(report: dict[str, Any]) -> None:
    """The tables that a person reads."""
    machine = dict(report["machine"])
    cpus = machine.pop("cpus")
    print(f"\n{cpus} CPUs, shared with the load generator; " + ", ".join(f"{k} {v}" for k, v in machine.items()))
    print("\nin flight  server  requests/s   p50 us   p99 us  failures  generator CPU")
    for in_flight, servers in report["load"].items():
        for name, result in servers.items():
            m = result["median"]
            print(
                f"{in_flight:>9}  {name:<6}  {m['requests_per_s']:>10.0f} {m['p50_us']:>8.0f} {m['p99_us']:>8.0f} "
                f"{m['failures']:>9.0f} {m['generator_cpu']:>14.0%}"
            )
        pool, plain = servers["pool"]["median"], servers["plain"]["median"]
        rate, p50, p99 = (pool[key] / plain[key] for key in ("requests_per_s", "p50_us", "p99_us"))
        print(f"{in_flight:>9}  {'ratio':<6}  {rate:>10.2f} {p50:>8.2f} {p99:>8.2f}")
    print("\nstart to first answer: " + ", ".join(f"{name} {s:.2f} s" for name, s in report["start_s"].items()))
    for name, processes in report["memory"].items():
        print(f"\n{name:<32} {'resident MiB':>12} {'proportional MiB':>16}")
        for each in processes:
            print(f"  {each['role']:<30} {each['rss_bytes'] / MIB:>12.0f} {each['pss_bytes'] / MIB:>16.0f}")
        total = [sum(each[key] for each in processes) / MIB for key in ("rss_bytes", "pss_bytes")]
        print(f"  {'all':<30} {total[0]:>12.0f} {total[1]:>16.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="The pool beside a plain server.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server and load (5)")
    parser.add_argument("--duration_s", type=float, default=3.0, help="of each turn, after 1 s of warm-up (3)")
    parser.add_argument("--starts", type=int, default=3, help="measured starts of each server (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    args = parser.parse_args()
    if args.rounds < 1 or args.starts < 1 or args.duration_s <= 0:
        parser.error("--rounds, --starts and --duration_s must be positive")
    subprocess.run([sys.executable, str(SCRIPTS / "demo_models.py"), str(MODELS)], check=True)
    scratch = Path(tempfile.mkdtemp(prefix="mp-bench-"))
    try:
        report = measure_all(args, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
