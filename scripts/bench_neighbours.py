"""What a neighbour costs: latency of a small model alone, while a big one loads, and beside hogs at idle priority.

The conditions take turns, in windows of the same length. While the big model loads, its next version appears as soon as
the last one is ready. Besides the whole windows the requests that overlap a load are looked at by themselves. A load
has several threads, so beside one hog, which keeps one CPU busy, there is one on each CPU.
"""

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_figures
import bench_inputs
import bench_models
from bench_server import SCRIPTS, Deadline, Server, pool_of

from modelpool.supervisor.wire import cpu_count

BIG = "big"
IN_FLIGHT = 4
WARMUP_S = 1.0
POLL_S = 0.1
ALONE, LOADS, DURING = "alone", "big one loads", "  during loads"
HOG, HOGS = "idle-priority hog", "  one on each CPU"

Span = tuple[float, float]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` of a window of `duration_s` in each condition; the big model has `big_mb` of weights."""

    rounds: int
    duration_s: float
    big_mb: int


@dataclass(slots=True)
class BigModel:
    """The versions of the big model, `version` the newest."""

    server: Server
    source: Path
    base: Path
    version: int = 0

    def publish(self) -> None:
        self.version += 1
        bench_models.link_version(self.source, self.base, self.version)

    def loading(self) -> tuple[bool, Span | None]:
        """Whether the newest version is ready and alone, and when it was loaded or has been loading until now."""
        workers = self.server.workers(BIG)
        now_s = time.monotonic()
        newest = [each for each in workers if each["version"] == self.version and each["pid"] is not None]
        if not newest:
            return False, None
        since_s = now_s - newest[0]["state_s"]
        if newest[0]["state"] != "ready":
            return False, (since_s, now_s)
        alone = sum(each["pid"] is not None for each in workers) == 1
        return alone, (since_s - newest[0]["load_s"] - newest[0]["warmup_s"], since_s)

    def forget_old(self) -> None:
        for path in self.base.iterdir():
            if path.name.isdigit() and int(path.name) < self.version:
                shutil.rmtree(path)


def measure(scratch: Path, options: Options, deadline: Deadline) -> dict[str, Any]:
    """Every round and the medians by condition, as a JSON document."""
    source = bench_models.big_version(options.big_mb)
    with _base_beside(source) as base:
        models = {bench_inputs.HALF_PLUS_TWO: bench_models.small_version().parent, BIG: base}
        server = pool_of(scratch, models, f"[models.{BIG}]\nsettle_s = 0\n")
        big = BigModel(server, source, base)
        big.publish()
        with server.running():
            deadline.wait(lambda: big.loading()[0], "the big model ready")
            rounds, loads_s = _rounds(server, big, scratch, options, deadline)
    conditions = {name for each in rounds for name in each}
    medians = {
        name: {
            key: statistics.median(each[name][key] for each in rounds if name in each)
            for key in ("p50_us", "p99_us", "requests_per_s", "loads", "loading")
        }
        for name in (ALONE, LOADS, DURING, HOG, HOGS)
        if name in conditions
    }
    return {
        "big_mb": options.big_mb,
        "in_flight": IN_FLIGHT,
        "duration_s": options.duration_s,
        "load_s": statistics.median(loads_s) if loads_s else None,
        "rounds": rounds,
        "median": medians,
    }


@contextlib.contextmanager
def _base_beside(source: Path) -> Iterator[Path]:
    """An empty base path on the file system of the big model, where links to it are possible."""
    base = source.parent / f".bench-{time.time_ns()}"
    base.mkdir()
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _rounds(
    server: Server, big: BigModel, scratch: Path, options: Options, deadline: Deadline
) -> tuple[list[dict[str, Figures]], list[float]]:
    rounds: list[dict[str, Figures]] = []
    loads_s: list[float] = []
    for i in range(options.rounds):
        if rounds and not deadline.has(5 * (options.duration_s + WARMUP_S + 2)):
            print(f"  --limit_s: {i} of {options.rounds} rounds")
            break
        taken: dict[str, Figures] = {}
        for condition, hogs in ((ALONE, 0), (LOADS, 0), (HOG, 1), (HOGS, cpu_count.available())):
            with _hogs(hogs):
                spans, figures, loads = _window(server, big, scratch, options, condition == LOADS)
            taken[condition] = figures
            during = [end - start for start, end in spans if any(start < e and end > b for b, e in loads)]
            if condition == LOADS and during:
                taken[DURING] = {**figures, **bench_figures.latency_figures(during), "requests_per_s": len(during)}
                taken[DURING]["requests_per_s"] /= figures["loading"] * options.duration_s
            deadline.wait(lambda: big.loading()[0], "the big model ready")
            _, last = big.loading()
            if loads and last is not None:  # the last one may have gone on after the window
                loads_s += [ended - began for began, ended in [*loads[:-1], last]]
            big.forget_old()
        rounds.append(taken)
        p99 = ", ".join(f"{name.strip()} {each['p99_us']:.0f} us" for name, each in taken.items())
        print(f"  round {i + 1} of {options.rounds}, p99: {p99}", flush=True)
    return rounds, loads_s


def _window(
    server: Server, big: BigModel, scratch: Path, options: Options, load_again: bool
) -> tuple[list[Span], Figures, list[Span]]:
    """One window of load on the small model; the state of the big one is asked for in every condition alike."""
    raw = scratch / "spans.json"
    command = [sys.executable, str(SCRIPTS / "bench_load.py"), f"--address=127.0.0.1:{server.port}", f"--raw={raw}"]
    command += [f"--in_flight={IN_FLIGHT}", f"--warmup_s={WARMUP_S}", f"--duration_s={options.duration_s}"]
    loads: dict[int, Span] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            _follow(big, load_again, lambda: process.poll() is None, loads)
        except BaseException:
            process.kill()
            raise
        assert process.stdout is not None
        figures: Figures = json.loads(process.stdout.read())
    spans: list[Span] = [(start, end) for start, end in json.loads(raw.read_text("utf-8"))]
    # The window's borders by the requests counted in it.
    began_s, ended_s = min(start for start, _ in spans), max(end for _, end in spans)
    inside = [(b, e) for b, e in loads.values() if b < ended_s and e > began_s]
    covered = sum(min(e, ended_s) - max(b, began_s) for b, e in inside)
    return spans, {**figures, "loads": len(inside), "loading": covered / options.duration_s}, inside


def _follow(big: BigModel, load_again: bool, going_on: Callable[[], bool], loads: dict[int, Span]) -> None:
    """Until the window is over: note when the big model loads, and have it load again when it is ready."""
    first = big.version
    while going_on():
        ready, span = big.loading()
        if span is not None and big.version > first:
            loads[big.version] = span
        if load_again and ready:
            big.forget_old()  # nothing but the newest is left in memory, so this unloads nothing
            big.publish()
        time.sleep(POLL_S)


@contextlib.contextmanager
def _hogs(count: int) -> Iterator[None]:
    command = [sys.executable, str(SCRIPTS / "bench_idle_hog.py")]
    with contextlib.ExitStack() as ends:
        for _ in range(count):
            process = ends.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            ends.callback(process.kill)
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit("the hog does not run: no SCHED_IDLE here?")
        yield


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    medians = report["median"]
    load_s = "none seen" if report["load_s"] is None else f"{report['load_s']:.2f} s each"
    print(f"\nneighbours: {bench_inputs.HALF_PLUS_TWO}, {report['in_flight']} in flight, ", end="")
    print(f"windows of {report['duration_s']:g} s, ", end="")
    print(f"medians of {len(report['rounds'])} rounds, failures of all; ", end="")
    print(f"the big one has {report['big_mb']} MB, loads: {load_s}")
    print(f"  {'condition':<18} {'req/s':>7} {'p50 us':>7} {'p99 us':>7} {'p50 ratio':>9} {'p99 ratio':>9} ", end="")
    print(f"{'failures':>8} {'loads':>5} {'time loading':>12}")
    alone = medians[ALONE]
    for name, m in medians.items():
        ratios = [m[key] / alone[key] for key in ("p50_us", "p99_us")]
        print(f"  {name:<18} {m['requests_per_s']:>7.0f} {m['p50_us']:>7.0f} {m['p99_us']:>7.0f} ", end="")
        failures = sum(each[name]["failures"] for each in report["rounds"] if name in each)
        print(f"{ratios[0]:>9.2f} {ratios[1]:>9.2f} {failures:>8.0f} {m['loads']:>5.0f} {m['loading']:>12.0%}")
    moved = ", ".join(
        f"{name.strip()} {m['p99_us'] - alone['p99_us']:+.0f} us" for name, m in medians.items() if name != ALONE
    )
    print(f"  p99 moves by: {moved}")
