"""What is measured against each other: pools by engine, batching and replicas, the plain server, a bare loop.

A contender that this version of the server cannot be (an engine or key that it does not know) is left out, and said so.
All stay up while they are measured in turn. The load comes from one generator for all that are compared.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import bench_h2load
import bench_loop
import bench_models
from bench_inputs import HALF_PLUS_TWO
from bench_loop import LoopProcess
from bench_plan import Plan
from bench_server import SCRIPTS, Server, plain_of, pool_of
from bench_workloads import WORKLOADS, Workload

from modelpool.supervisor.flags import Flags
from modelpool.supervisor.model_policy import ModelPolicy

LOOP = "loop"
PLAIN = "plain"
AUTO = "auto"  # after the name of a pool without batching

Figures = dict[str, Any]


class Contender(Protocol):
    """One that a load can be put on. `load` gives the figures of one turn."""

    name: str

    def serves(self, workload: Workload) -> bool: ...

    def load(self, workload: Workload, plan: Plan) -> Figures: ...


@dataclass(frozen=True, slots=True)
class Pool:
    """How a pool is started. An `engine` of "" is the server's own choice; `replicas` count for `only`."""

    engine: str = ""
    batching: str = ""
    replicas: int = 1
    only: str = ""
    frontends: int = 1

    @property
    def name(self) -> str:
        parts = [self.engine or "pool"]
        parts += [AUTO] if self.batching else []
        parts += [f"x{self.replicas}"] if self.replicas > 1 else []
        return "+".join(parts)

    def unknown(self) -> str:
        """Which of its settings this version of the server does not know; "" for none."""
        known = settings_known()
        wanted = [("--frontend", "frontend", bool(self.engine)), ("--frontends", "frontends", self.frontends > 1)]
        wanted += [("batching", "batching", bool(self.batching)), ("replicas", "replicas", self.replicas > 1)]
        return ", ".join(shown for shown, name, needed in wanted if needed and name not in known)

    def server(self, scratch: Path, bases: Mapping[str, Path], *more: str) -> Server:
        settings = "[defaults]\n"
        settings += f'batching = "{self.batching}"\n' if self.batching else ""
        settings += f"replicas = {self.replicas}\n" if self.replicas > 1 else ""
        flags = [f"--frontend={self.engine}"] if self.engine else []
        flags += [f"--frontends={self.frontends}"] if self.frontends > 1 else []
        return pool_of(scratch, bases, settings, *flags, *more, name=self.name)

    def of_model(self, scratch: Path, bases: Mapping[str, Path], model: str, *lines: str) -> Server:
        """The same with settings of one model's own."""
        flags = [f"--frontend={self.engine}"] if self.engine else []
        return pool_of(scratch, bases, "\n".join([f"[models.{model}]", *lines, ""]), *flags, name=self.name)


def settings_known() -> set[str]:
    """Names of the flags, and of the keys of the pool's file, that this version of the server knows."""
    return {each.name for kind in (Flags, ModelPolicy) for each in fields(kind)}


def pools(engines: Sequence[str], auto: bool, replicas: int, frontends: int) -> list[Pool]:
    """Those that this version of the server can be; says which it cannot."""
    wanted = [Pool(engine, frontends=frontends) for engine in engines]
    wanted += [Pool(engine, batching="auto", frontends=frontends) for engine in engines[:1] if auto]
    wanted += [Pool(engines[0], replicas=replicas, only="conv", frontends=frontends)] if replicas > 1 else []
    able = []
    for each in wanted:
        if missing := each.unknown():
            print(f"  {each.name}: left out, this server does not know {missing}", flush=True)
        else:
            able.append(each)
    return able


def default_engines() -> tuple[str, ...]:
    """The server's default engine, named where it has a choice."""
    return ("envoy",) if "frontend" in settings_known() else ("",)


class ServerContender:
    """A running server under load; each turn also tells what its processes used."""

    def __init__(self, server: Server, only: str = "") -> None:
        self.name = server.name
        self.server = server
        self._only = only

    def serves(self, workload: Workload) -> bool:
        return self._only in ("", workload.name) and (not workload.rest or bool(self.server.rest_port))

    def load(self, workload: Workload, plan: Plan) -> Figures:
        before = self.server.cpu_s()
        figures = load(self.server.address(workload.rest), workload, plan)
        after = self.server.cpu_s()
        answers = figures["answers"] or 1.0
        used = {_kind(role, workload): 0.0 for role in after}
        for role, cpu_s in after.items():
            used[_kind(role, workload)] += (cpu_s - before.get(role, 0.0)) / answers * 1e6
        return {**figures, "cpu_us": sum(used.values()), "cpu_us_by_role": used}


def _kind(role: str, workload: Workload) -> str:
    """Workers by whether they had to do with the load."""
    if not role.startswith("worker "):
        return role
    return "worker" if role.split(" ")[1] == workload.model else "other workers"


def load(address: str, workload: Workload, plan: Plan) -> Figures:
    """One turn, by the generator that the plan asks for."""
    if generator_for(workload, plan) == "h2load":
        return {**bench_h2load.run(address, workload, plan), "generator": "h2load"}
    command = [sys.executable, str(SCRIPTS / "bench_load.py"), f"--address={address}", f"--workload={workload.name}"]
    limit_s = plan.warmup_s + plan.duration_s + 60
    done = subprocess.run([*command, *plan.words()], stdout=subprocess.PIPE, check=False, timeout=limit_s)
    if done.returncode:
        raise SystemExit(f"the load of {workload.name} on {address} ended with {done.returncode}")
    return {**json.loads(done.stdout), "generator": "own"}


def generator_for(workload: Workload, plan: Plan) -> str:
    able = not workload.rest and not plan.rate_per_s and not plan.requests and bench_h2load.program() is not None
    return "h2load" if able and plan.generator != "own" else "own"


class Loop:
    """TensorFlow called in a loop by some threads of a process that waits for its turns."""

    def __init__(self, workload: str, process: LoopProcess, threads: int) -> None:
        self.name = LOOP if threads == 1 else f"{LOOP}+{threads} threads"
        self._workload = workload
        self._process = process
        self._threads = threads

    def serves(self, workload: Workload) -> bool:
        return workload.name == self._workload

    def load(self, workload: Workload, plan: Plan) -> Figures:
        self._process.begin(plan, self._threads)
        return self._process.end()


@contextlib.contextmanager
def looping(workload: str, bases: Mapping[str, Path]) -> Iterator[list[Contender]]:
    """By one thread, and by as many as there are CPUs."""
    version = bench_models.version_of(bases[WORKLOADS[workload].model])
    with bench_loop.running(workload, version) as process:
        yield [Loop(workload, process, threads) for threads in sorted({1, len(os.sched_getaffinity(0))})]


@contextlib.contextmanager
def running(
    scratch: Path, workloads: Iterable[str], which: Sequence[Pool], plain: bool = True
) -> Iterator[list[Contender]]:
    """All contenders for some workloads, up: pools first, then the plain server, then the loop beside `conv`."""
    wanted = list(workloads)
    bases = bench_models.build(wanted)
    with contextlib.ExitStack() as stack:
        all_of_them: list[Contender] = []
        for pool in which:
            if pool.only and pool.only not in wanted:
                continue
            needed = {n: b for n, b in bases.items() if not pool.only or n in (pool.only, HALF_PLUS_TWO)}
            server = pool.server(scratch, needed)
            stack.enter_context(server.running())
            all_of_them.append(ServerContender(server, pool.only))
        if plain:
            server = plain_of(scratch, {name: bench_models.version_of(base) for name, base in bases.items()})
            stack.enter_context(server.running())
            all_of_them.append(ServerContender(server))
            if "conv" in wanted:
                all_of_them += stack.enter_context(looping("conv", bases))
        yield all_of_them
