"""The pool beside a plain single-process server, on the same model, in one run: speed, start, memory.

Both run all the time and are measured in turn (pool, plain, pool, plain, ...), so that whatever else the machine
does hits both; the medians are printed. All on loopback; the load generator is a process of its own on the same
machine and takes its share of the CPUs. Runs in the environment that `environment.py` makes.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import bench_load
import bench_many
import bench_memory
import bench_neighbours
import bench_server
import bench_unload
from bench_memory import Memory
from bench_server import MODELS, SCRIPTS, Deadline, Server, free_port

IN_FLIGHT = (1, 32)
WARMUP_S = 1.0
MIB = 1024 * 1024
WHAT = ("serving", "start", "neighbours", "unload")


def pool_server(scratch: Path, models: list[str]) -> Server:
    """The pool with one demo model or all of them."""
    if models == [bench_load.MODEL]:
        what = [f"--model_name={bench_load.MODEL}", f"--model_base_path={MODELS / bench_load.MODEL}"]
    else:
        what = [f"--model_config_file={MODELS / 'models.config'}"]
    return bench_server.pool(scratch, free_port(), free_port(), what)


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
        for server in (pool_server(scratch, [bench_load.MODEL]), plain_server(scratch)):
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
    one = pool_server(scratch, [bench_load.MODEL])
    with one.running():
        _one_load(one, max(IN_FLIGHT), WARMUP_S)
        memory["pool, one model"] = one.memory()
    plain = plain_server(scratch)
    with plain.running():
        _one_load(plain, max(IN_FLIGHT), WARMUP_S)
        pids = plain.pids()
        memory["plain, one model"] = bench_memory.measure(pids, dict.fromkeys(pids, "plain"))
    every = pool_server(scratch, ["demo", "dense", bench_load.MODEL])
    with every.running():
        _one_load(every, max(IN_FLIGHT), WARMUP_S)
        memory["pool, all demo models"] = every.memory()
    return memory


def measure_serving(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The pool beside the plain server."""
    print("Start to the first answer ...", flush=True)
    starts = measure_starts(scratch, args.starts)
    pool, plain = pool_server(scratch, [bench_load.MODEL]), plain_server(scratch)
    print("Throughput and latency ...", flush=True)
    with pool.running(), plain.running():
        load = measure_load([pool, plain], args.rounds, args.duration_s)
    print("Memory ...", flush=True)
    memory = measure_memory(scratch)
    return {
        "start_s": starts,
        "load": load,
        "memory": {name: [each.to_dict() for each in processes] for name, processes in memory.items()},
    }


def measure_all(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All that was asked for, as one JSON document: the figures of `serving` at its top, the others by their names."""
    report: dict[str, Any] = {
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("modelpool", "tensorflow", "grpcio")},
        },
        "options": {name: value for name, value in vars(args).items() if name != "json"},
    }
    for what in args.what:
        print(f"{what}:", flush=True)
        deadline = Deadline(args.limit_s)
        if what == "serving":
            report.update(measure_serving(args, scratch))
        elif what == "start":
            options = bench_many.Options(args.models, args.plain_processes)
            report[what] = bench_many.measure(scratch, options, deadline)
        elif what == "neighbours":
            windows = bench_neighbours.Options(args.rounds, args.duration_s, args.big_mb)
            report[what] = bench_neighbours.measure(scratch, windows, deadline)
        else:
            cycles = bench_unload.Options(args.cycles, args.rounds, args.big_mb)
            report[what] = bench_unload.measure(scratch, cycles, deadline)
    return report


def print_report(report: dict[str, Any]) -> None:
    """The tables that a person reads."""
    machine = dict(report["machine"])
    cpus = machine.pop("cpus")
    print(f"\n{cpus} CPUs, shared with the load generator; " + ", ".join(f"{k} {v}" for k, v in machine.items()))
    if "load" in report:
        print_serving(report)
    for what, bench in (("start", bench_many), ("neighbours", bench_neighbours), ("unload", bench_unload)):
        if what in report:
            bench.print_report(report[what])


def print_serving(report: dict[str, Any]) -> None:
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


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="The pool beside a plain server, and by itself.")
    parser.add_argument(
        "--what", default="serving", metavar="WHAT,...", help=f"which benches, of {', '.join(WHAT)} (serving)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server, load or condition (5)")
    parser.add_argument("--duration_s", type=float, default=3.0, help="of each turn, after 1 s of warm-up (3)")
    parser.add_argument("--starts", type=int, default=3, help="serving: measured starts of each server (3)")
    parser.add_argument("--models", type=int, default=50, help="start: models in one pool (50)")
    parser.add_argument("--plain_processes", type=int, default=4, help="start: plain processes measured (4)")
    parser.add_argument("--big_mb", type=int, default=500, help="neighbours, unload: weights of the big model (500)")
    parser.add_argument("--cycles", type=int, default=200, help="unload: loads and unloads of a tiny model (200)")
    parser.add_argument("--limit_s", type=float, default=240.0, help="most time of each bench but serving (240)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    args = parser.parse_args(argv)
    args.what = args.what.split(",")
    if unknown := set(args.what) - set(WHAT):
        parser.error(f"--what: {', '.join(sorted(unknown))}: not one of {', '.join(WHAT)}")
    for name in ("rounds", "starts", "duration_s", "models", "plain_processes", "big_mb", "cycles", "limit_s"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be positive")
    return args


def _end(*_: object) -> NoReturn:
    raise SystemExit("terminated")


def main() -> int:
    args = parse_options()
    signal.signal(signal.SIGTERM, _end)
    subprocess.run([sys.executable, str(SCRIPTS / "demo_models.py"), str(MODELS)], check=True)
    scratch = Path(tempfile.mkdtemp(prefix="mp-bench-"))
    try:
        report = measure_all(args, scratch)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
