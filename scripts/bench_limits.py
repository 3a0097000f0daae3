"""How far the figures of the data plane could go: what a request's way costs where nothing of ours is on it.

For each target that is hard to reach, in turns, in one run: the whole way, the plain server, and by itself each part
that no change of ours makes cheaper: Envoy with pyvoy that answers at once, with the load generator
(`bench_floor_app`); ZeroMQ between two processes (`bench_floor_zmq`); TensorFlow's own call, with batching auto of as
many requests as the pool's metrics show; for large requests the write to shared memory. Each part has the CPUs for
itself and is asked as fast as it answers, which is how it takes least; so for one request in flight, which finds each
asleep, they are measured as a chain as well (`bench_floor_chain`), and so is an open loop (`bench_limits_open`). What
this comes to says `bench_limits_report`.
"""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_contenders
import bench_figures
import bench_floor_chain
import bench_floor_server
import bench_floor_zmq
import bench_h2load
import bench_limits_open
import bench_limits_report
import bench_loop
import bench_machine
import bench_models
import bench_targets
import grpc
from bench_contenders import Pool, ServerContender
from bench_floor_asgi import REPLY
from bench_floor_zmq import Traffic
from bench_limits_report import CHAIN, P50, TARGETS, Target
from bench_metrics import MONITORING, BatchClock
from bench_plan import LoopOrder, Plan
from bench_server import Server, plain_of
from bench_serving import Options
from bench_workloads import WORKLOADS, Workload

from modelpool.supervisor.wire import arena

# A worker's answers leave in such messages where it has no batches (`worker.session`).
_ANSWERS_TOGETHER = 16
_PART_WARMUP_S = 0.2
# So many large requests are under way: their buffers lie in no cache when their turn comes.
_BUFFERS = 32

Figures = dict[str, float]
Part = Callable[[Plan], Figures]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is up while all is measured. `whole`: pools by their batching; the others by workload."""

    whole: Mapping[str, ServerContender]
    plain: ServerContender
    fronts: Mapping[str, ServerContender]
    chains: Mapping[str, ServerContender]
    loops: Mapping[str, bench_loop.LoopProcess]
    replies: Mapping[str, bytes]
    per_run: Mapping[str, float]
    scratch: Path


def measure(scratch: Path, pool: Pool, options: Options, share: float, arrivals: str) -> dict[str, Any]:
    """The medians and all rounds of each part of each target, and of the open loops, as a JSON document."""
    if pool.engine == "grpcio":
        raise SystemExit("limits: what is measured is the engine envoy")
    targets = [each for each in TARGETS if not each.generator or _has_choice(options)]
    bases = bench_models.build(sorted({each.workload for each in targets}))
    auto = replace(pool, batching="auto")
    per_run = _requests_per_run(scratch, auto, bases, [each for each in targets if each.batching], options)
    with contextlib.ExitStack() as stack:
        pools = {"": pool.server(scratch, bases), "auto": auto.server(scratch, bases)}
        plain = plain_of(scratch, {name: bench_models.version_of(base) for name, base in bases.items()})
        for server in (*pools.values(), plain):
            stack.enter_context(server.running())
        workloads = [WORKLOADS[name] for name in dict.fromkeys(each.workload for each in targets)]
        replies = {each.name: _reply(pools[""], each) for each in workloads}
        stage = Stage(
            {batching: ServerContender(server) for batching, server in pools.items()},
            ServerContender(plain),
            {each.name: stack.enter_context(_front(scratch, each, replies[each.name])) for each in workloads},
            {
                each.name: stack.enter_context(_chain(scratch, each, bases, replies[each.name]))
                for each in workloads
                if each.name in {target.workload for target in targets if target.figure == P50}
            },
            {each.name: stack.enter_context(_loop(each, bases)) for each in workloads},
            replies,
            per_run,
            scratch,
        )
        cells = [_measure(target, stage, options) for target in targets]
        ways = {"whole": stage.whole[""], "plain": stage.plain, CHAIN: stage.chains[bench_targets.OPEN]}
        opened = bench_limits_open.measure(ways, share, arrivals, options)
    return {"cpus": len(os.sched_getaffinity(0)), "targets": cells, "open": opened}


def print_report(report: Mapping[str, Any]) -> None:
    """The tables that a person reads."""
    bench_limits_report.print_report(report)
    if "open" in report:
        print()
        bench_limits_open.print_report(report["open"])


def _has_choice(options: Options) -> bool:
    """Whether there is another generator than our own."""
    return options.generator != "own" and bench_h2load.program() is not None


def _measure(target: Target, stage: Stage, options: Options) -> dict[str, Any]:
    plan = replace(options.plan(target.in_flight), generator=target.generator or options.generator)
    per_run = stage.per_run.get(target.workload, 1.0) if target.batching else 1.0
    rounds: dict[str, list[Figures]] = {}
    with contextlib.ExitStack() as stack:
        parts = _parts(stack, target, stage, per_run)
        for turn in range(options.rounds):
            for name, load in parts.items():
                rounds.setdefault(name, []).append(load(plan))
            print(f"  {target.name}, round {turn + 1} of {options.rounds}: done", flush=True)
    medians = {name: bench_figures.medians(found) for name, found in rounds.items()}
    return {**target.to_dict(), "requests_per_run": per_run, "median": medians, "rounds": rounds}


def _parts(stack: contextlib.ExitStack, target: Target, stage: Stage, per_run: float) -> dict[str, Part]:
    """By the names that `bench_limits_report` knows."""
    workload = WORKLOADS[target.workload]
    request_bytes = len(workload.request())
    shared = request_bytes >= arena.REQUEST_BYTES
    burst = 1 if shared else _ANSWERS_TOGETHER if not target.batching else max(1, round(per_run))
    traffic = Traffic(
        target.in_flight,
        min(burst, target.in_flight),
        request_bytes,
        len(stage.replies[workload.name]),
        shared,
    )
    exchange = stack.enter_context(bench_floor_zmq.running(stage.scratch, traffic))
    loop = stage.loops[workload.name]
    order = LoopOrder(_PART_WARMUP_S, 1.0, 1, max(1, round(per_run)), _BUFFERS if shared else 1)

    def tensorflow(plan: Plan) -> Figures:
        loop.order(replace(order, duration_s=plan.duration_s))
        return {name: value for name, value in loop.end().items() if isinstance(value, float)}

    parts: dict[str, Part] = {
        "whole": lambda plan: _asked(stage.whole[target.batching], workload, plan),
        "plain": lambda plan: _asked(stage.plain, workload, plan),
        "front": lambda plan: _asked(stage.fronts[workload.name], workload, plan),
        "zmq": lambda plan: exchange.load(_PART_WARMUP_S, plan.duration_s),
        "tensorflow": tensorflow,
    }
    if target.figure == P50:
        parts[CHAIN] = lambda plan: _asked(stage.chains[workload.name], workload, plan)
    if shared:
        parts["shared"] = lambda plan: _shared_memory(request_bytes, plan.duration_s)
    return parts


def _asked(contender: ServerContender, workload: Workload, plan: Plan) -> Figures:
    """A turn under load, with the generator's CPU time per request; ends the bench when an answer is wrong."""
    busy = _Busy(plan)
    found = contender.load(workload, plan)
    busy.join()
    if found["failures"] or found["wrong"] or not found["answers"]:
        raise SystemExit(f"{contender.name}: {found['failures']:.0f} failed, {found['wrong']:.0f} wrong answers")
    generator_s = found["generator_cpu"] * (plan.warmup_s + plan.duration_s)
    roles = {f"cpu_us of {role}": used for role, used in found["cpu_us_by_role"].items()}
    names = ("requests_per_s", "p50_us", "p99_us", "cpu_us")
    return {
        **{name: found[name] for name in names},
        **roles,
        "generator_us": generator_s / found["answers"] * 1e6,
        "busy_cpus": busy.cpus,
    }


class _Busy(threading.Thread):
    """How many of the machine's CPUs are not idle in the middle of a load that begins now, whoever has them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(name="busy", daemon=True)
        self._plan = plan
        self.cpus = 0.0
        self.start()

    def run(self) -> None:
        time.sleep(self._plan.warmup_s + self._plan.duration_s * 0.2)
        began_s, before_s = time.monotonic(), bench_machine.busy_s()
        time.sleep(self._plan.duration_s * 0.6)
        self.cpus = (bench_machine.busy_s() - before_s) / (time.monotonic() - began_s)


def _shared_memory(size_bytes: int, duration_s: float) -> Figures:
    """Payloads written to places that were written before, each from a buffer of its own."""
    fd = arena.create("floor", size_bytes * _BUFFERS)
    try:
        buffers = [os.urandom(size_bytes) for _ in range(_BUFFERS)]
        for place, buffer in enumerate(buffers):
            os.pwrite(fd, buffer, place * size_bytes)
        took_s: list[float] = []
        began_cpu_ns, until = time.thread_time_ns(), time.monotonic() + duration_s
        while (began := time.monotonic()) < until:
            place = len(took_s) % _BUFFERS
            os.pwrite(fd, buffers[place], place * size_bytes)
            took_s.append(time.monotonic() - began)
        cpu_us = (time.thread_time_ns() - began_cpu_ns) / 1000 / len(took_s)
    finally:
        os.close(fd)
    return {"requests_per_s": len(took_s) / duration_s, "cpu_us": cpu_us, "p50_us": statistics.median(took_s) * 1e6}


# -- what is up --------------------------------------------------------------------------------------------------


def _reply(server: Server, workload: Workload) -> bytes:
    """A right answer, as the pool gives it."""
    with grpc.insecure_channel(server.address(), options=[("grpc.max_receive_message_length", -1)]) as channel:
        reply: bytes = channel.unary_unary(workload.path)(workload.request(), timeout=30)
    if not workload.is_right_message(reply):
        raise SystemExit(f"{server.name} gave a wrong answer to {workload.name}")
    return reply


@contextlib.contextmanager
def _front(scratch: Path, workload: Workload, reply: bytes) -> Iterator[ServerContender]:
    folder = _private(scratch / f"front-{workload.name}")
    (folder / REPLY).write_bytes(reply)
    server = bench_floor_server.server_of(f"front of {workload.name}", bench_floor_server.APP, folder)
    with bench_floor_server.running(server):
        yield ServerContender(server)


def _chain(
    scratch: Path, workload: Workload, bases: Mapping[str, Path], reply: bytes
) -> contextlib.AbstractContextManager[ServerContender]:
    folder = _private(scratch / f"chain-{workload.name}")
    version = bench_models.version_of(bases[workload.model])
    return bench_floor_chain.running(folder, workload.name, version, reply)


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _loop(workload: Workload, bases: Mapping[str, Path]) -> contextlib.AbstractContextManager[bench_loop.LoopProcess]:
    return bench_loop.running(workload.name, bench_models.version_of(bases[workload.model]))


def _requests_per_run(
    scratch: Path, pool: Pool, bases: Mapping[str, Path], targets: Sequence[Target], options: Options
) -> dict[str, float]:
    """How many requests one run of each model takes, by a pool of its own, because it costs to count them."""
    config = scratch / "limits-monitoring.config"
    config.write_text(MONITORING, encoding="utf-8")
    server = pool.server(scratch, bases, f"--monitoring_config_file={config}")
    found = {}
    with server.running():
        for target in targets:
            workload, plan = WORKLOADS[target.workload], options.plan(target.in_flight)
            bench_contenders.load(server.address(), workload, plan)  # it learns how many pay
            clock = BatchClock(server.address(rest=True), workload.model)
            before = clock.read()
            bench_contenders.load(server.address(), workload, plan)
            found[target.workload] = clock.read().since(before).mean() or 1.0
            print(f"  {target.name}: {found[target.workload]:.1f} requests in a run", flush=True)
    return found
