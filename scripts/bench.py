"""The pool beside a plain single-process server, and by itself, in one run: `scripts/bench --help`.

What is compared runs all the time and is measured in turn (A, B, A, B, ...), so that whatever else the machine does
hits all; the medians are printed, every round is in the JSON file. All on loopback; the load generator is a process of
its own on the same machine and takes its share of the CPUs. Runs in the environment that `environment.py` makes.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import bench_contenders
import bench_footprint
import bench_machine
import bench_many
import bench_neighbours
import bench_options
import bench_serving
import bench_unload
from bench_contenders import Pool
from bench_server import Deadline

_HIDDEN = ("json", "quick")


def measure_contenders(args: argparse.Namespace, scratch: Path, report: dict[str, Any]) -> None:
    """`serving` and `open`, on the same servers."""
    pools = bench_contenders.pools(args.engines, not args.no_batching, args.replicas, args.frontends)
    options = bench_serving.Options(args.rounds, args.duration_s, args.warmup_s, args.connections, args.seed)
    print("starting the servers ...", flush=True)
    with bench_contenders.running(scratch, args.workloads, pools, args.generator, not args.no_plain) as contenders:
        if "serving" in args.what:
            loads = [(workload, n) for workload in args.workloads for n in args.in_flight]
            report["serving"] = bench_serving.measure_closed(contenders, loads, options)
        if "open" in args.what:
            loads = [(workload, 32) for workload in args.workloads]
            report["open"] = bench_serving.measure_open(contenders, loads, args.share, args.arrivals, options)


def measure_all(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All that was asked for, as one JSON document."""
    report: dict[str, Any] = {
        "machine": bench_machine.describe(),
        "options": {name: value for name, value in vars(args).items() if name not in _HIDDEN},
    }
    if {"serving", "open"} & set(args.what):
        measure_contenders(args, scratch, report)
    for what in args.what:
        if what in ("serving", "open"):
            continue
        print(f"{what}:", flush=True)
        deadline = Deadline(args.limit_s)
        if what == "footprint":
            pool = Pool(args.engines[0], frontends=args.frontends)
            report[what] = bench_footprint.measure(scratch, pool, args.starts, args.generator)
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


REPORTS: dict[str, Callable[[Any], None]] = {
    "serving": bench_serving.print_report,
    "open": bench_serving.print_report,
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


def _end(*_: object) -> NoReturn:
    raise SystemExit("terminated")


def main() -> int:
    args = bench_options.parse()
    signal.signal(signal.SIGTERM, _end)
    scratch = Path(tempfile.mkdtemp(prefix="mp-bench-"))
    began_s = time.monotonic()
    try:
        report = measure_all(args, scratch)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report["took_s"] = round(time.monotonic() - began_s, 1)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
