"""The pool beside a plain single-process server, and by itself, in one run: `scripts/bench --help`.

What is compared runs all the time and is measured in turn (A, B, A, B, ...), so that whatever else the machine does
hits all; the medians are printed, every round is in the JSON file. All on loopback; the load generator is a process of
its own on the same machine and takes its share of the CPUs. Runs in the environment that `environment.py` makes.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import bench_contenders
import bench_footprint
import bench_growth
import bench_json
import bench_limits
import bench_machine
import bench_many
import bench_monitoring
import bench_neighbours
import bench_open
import bench_options
import bench_picture
import bench_profile
import bench_replicas
import bench_serving
import bench_targets
import bench_tenants
import bench_tensors
import bench_unload
import grpc
import zmq
from bench_contenders import Pool, ServerContender
from bench_server import Deadline

_HIDDEN = ("json", "picture", "report", "quick")
_CONTENDERS = {"serving", "open", "targets"}
_TERMINATED = "terminated"


def measure_contenders(args: argparse.Namespace, scratch: Path, report: dict[str, Any]) -> None:
    """`serving` and `open`, on the same servers; for `targets` just what these are about."""
    targets = "targets" in args.what
    workloads = bench_targets.WORKLOADS if targets else args.workloads
    loads = bench_targets.LOADS if targets else [(name, n) for name in workloads for n in args.in_flight]
    options = _serving_options(args)
    print("starting the servers ...", flush=True)
    with bench_contenders.running(scratch, workloads, _pools(args), not args.no_plain) as contenders:
        if targets or "serving" in args.what:
            times = bench_targets.times(Pool(args.engines[0]).name) if targets else {}
            report["serving"] = bench_serving.measure_closed(contenders, loads, options, times)
        if targets:
            more = replace(options, rounds=options.rounds * bench_targets.MORE_ROUNDS)
            report["open"] = bench_open.measure(contenders[:1], [bench_targets.OPEN], args.share, args.arrivals, more)
        elif "open" in args.what:
            report["open"] = bench_open.measure(contenders, workloads, args.share, args.arrivals, options)
        servers = [each for each in contenders if isinstance(each, ServerContender)]
        report["memory"] = {each.name: [one.to_dict() for one in each.server.memory()] for each in servers}


def _pools(args: argparse.Namespace) -> list[Pool]:
    return bench_contenders.pools(args.engines, not args.no_batching, args.replicas, args.frontends)


def _serving_options(args: argparse.Namespace) -> bench_serving.Options:
    return bench_serving.Options(
        args.rounds, args.duration_s, args.warmup_s, args.connections, args.seed, args.generator
    )


def measure_one(what: str, args: argparse.Namespace, scratch: Path) -> Any:
    """One of the benches that start servers of their own, as a JSON document."""
    pool = Pool(args.engines[0], frontends=args.frontends)
    deadline = Deadline(args.limit_s)
    if what == "profile":
        return bench_profile.measure(scratch, _pools(args), args.workloads, _serving_options(args))
    if what == "metrics":
        return bench_monitoring.measure(scratch, pool, args.workloads, _serving_options(args))
    if what == "replicas":
        return bench_replicas.measure(scratch, pool, _serving_options(args))
    if what == "tenants":
        return bench_tenants.measure(scratch, pool, _serving_options(args), args.arrivals)
    if what == "tensors":
        return bench_tensors.measure(scratch, args.rounds)
    if what == "growth":
        return bench_growth.measure(scratch, pool, "image", args.requests)
    if what == "limits":
        return bench_limits.measure(scratch, pool, _serving_options(args), args.share, args.arrivals)
    if what == "json":
        return bench_json.measure()
    if what == "footprint":
        return bench_footprint.measure(scratch, pool, args.starts)
    if what == "start":
        return bench_many.measure(scratch, bench_many.Options(args.models, args.plain_processes), deadline)
    if what == "neighbours":
        windows = bench_neighbours.Options(args.rounds, args.duration_s, args.big_mb)
        return bench_neighbours.measure(scratch, windows, deadline)
    return bench_unload.measure(scratch, bench_unload.Options(args.cycles, args.rounds, args.big_mb), deadline)


def measure_all(args: argparse.Namespace, scratch: Path, report: dict[str, Any]) -> None:
    """All that was asked for, into the report. What ends early is noted there under `failed`; the others go on."""
    if _CONTENDERS & set(args.what):
        with _noted("serving", report):
            measure_contenders(args, scratch, report)
    more = ["tenants", "growth"] if "targets" in args.what else []
    for what in dict.fromkeys([*more, *args.what]):
        if what not in _CONTENDERS:
            print(f"{what}:", flush=True)
            with _noted(what, report):
                report[what] = measure_one(what, args, scratch)


@contextlib.contextmanager
def _noted(what: str, report: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except (SystemExit, subprocess.SubprocessError, grpc.RpcError, zmq.ZMQError) as error:
        if str(error) == _TERMINATED:
            raise
        print(f"{what} ended early: {error}", file=sys.stderr, flush=True)
        report["failed"][what] = str(error)


REPORTS: dict[str, Callable[[Any], None]] = {
    "serving": bench_serving.print_report,
    "open": bench_open.print_report,
    "memory": bench_footprint.print_memory,
    "tenants": bench_tenants.print_report,
    "tensors": bench_tensors.print_report,
    "growth": bench_growth.print_report,
    "metrics": bench_monitoring.print_report,
    "replicas": bench_replicas.print_report,
    "profile": bench_profile.print_report,
    "json": bench_json.print_report,
    "limits": bench_limits.print_report,
    "footprint": bench_footprint.print_report,
    "start": bench_many.print_report,
    "neighbours": bench_neighbours.print_report,
    "unload": bench_unload.print_report,
}


def print_report(report: dict[str, Any]) -> None:
    """The tables that a person reads."""
    print(f"\n{bench_machine.title(report['machine'])}; the load generator runs beside the servers")
    for what, print_one in REPORTS.items():
        if what in report:
            print(f"\n== {what}")
            print_one(report[what])
    if "targets" in report["options"]["what"]:
        print("\n== targets")
        bench_targets.print_report(report)
    for what, words in report["failed"].items():
        print(f"\n== {what} ended early: {words}")


def draw(report: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(bench_picture.render(report), encoding="utf-8")
    except ValueError as error:
        raise SystemExit(f"--picture: {error}") from error


def _end(*_: object) -> NoReturn:
    raise SystemExit(_TERMINATED)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, with everything that needs a place on the disk below one folder that goes away."""
    options = {name: value for name, value in vars(args).items() if name not in _HIDDEN}
    report: dict[str, Any] = {"machine": bench_machine.describe(), "options": options, "failed": {}}
    scratch = Path(tempfile.mkdtemp(prefix="mp-bench-"))
    began_s = time.monotonic()
    try:
        measure_all(args, scratch, report)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {**report, "took_s": round(time.monotonic() - began_s, 1)}


def main() -> int:
    args = bench_options.parse()
    signal.signal(signal.SIGTERM, _end)
    try:
        report = json.loads(args.report.read_text("utf-8")) if args.report else run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_report(report)
    if args.picture:
        draw(report, args.picture)
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
