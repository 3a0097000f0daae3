"""How fast each part of a request's way is without the others: what stands between a pool and a higher figure.

In turn, in one run: the whole way; what the frontend answers by itself, which is all of it but ZeroMQ and the worker;
the worker, asked by this process in the frontend's place; ZeroMQ between two processes, with nothing at its ends; and
TensorFlow called in a loop. A part's time is no sum of others: each has the CPUs for itself, and its client beside it.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_contenders
import bench_figures
import bench_models
import zmq
from bench_contenders import Pool
from bench_plan import Plan
from bench_server import SCRIPTS, Server
from bench_serving import Options
from bench_workloads import STATUS, WORKLOADS, Workload

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code

LOADS = (1, 32)
_WORKLOAD = "tiny"
_SILENT_MS = 10_000
# An incarnation that no frontend of the pool will have.
_STRANGER = Incarnation(10**12)


@dataclass(frozen=True, slots=True)
class Part:
    """`load` gives the figures of one turn. `loads`: requests in flight that make sense for it."""

    name: str
    load: Callable[[Plan], dict[str, Any]]
    loads: tuple[int, ...] = LOADS


class Asker:
    """Asks a worker's data socket as a frontend does: several requests in one message where several are due."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, workload: Workload) -> None:
        self._socket = context.socket(zmq.DEALER)
        sockets.configure_dealer(self._socket, sockets.identity(Peer.FRONTEND, _STRANGER), sockets.DATA_HWM)
        self._socket.connect(endpoint)
        self._payload = workload.request()
        self._sent_s: dict[int, float] = {}
        self._next_id = 1

    def load(self, plan: Plan) -> dict[str, Any]:
        """A closed loop. Ends the program when an answer is an error, or none comes."""
        began_s = time.monotonic()
        measured_from_s = began_s + plan.warmup_s
        until_s = measured_from_s + plan.duration_s
        latencies_s: list[float] = []
        due = plan.in_flight
        while (now_s := time.monotonic()) < until_s:
            self._ask(due, now_s)
            answers = self._answers()
            now_s, due = time.monotonic(), len(answers)
            took_s = [now_s - self._sent_s.pop(request_id) for request_id in answers]
            if measured_from_s <= now_s <= until_s:
                latencies_s += took_s
        while self._sent_s:
            for request_id in self._answers():
                del self._sent_s[request_id]
        return {"requests_per_s": len(latencies_s) / plan.duration_s, **bench_figures.latency_figures(latencies_s)}

    def _ask(self, count: int, now_s: float) -> None:
        messages = []
        for request_id in range(self._next_id, self._next_id + count):
            head = data.pack_request(request_id, data.NO_DEADLINE_NS, int(now_s * 1e9), data.Method.PREDICT)
            messages.append((head, self._payload))
            self._sent_s[request_id] = now_s
        self._next_id += count
        self._socket.send_multipart(messages[0] if count == 1 else data.several_requests(messages))

    def _answers(self) -> list[int]:
        """The requests of one message's answers."""
        if not self._socket.poll(_SILENT_MS):
            raise SystemExit("limits: no answer")
        answers = data.unpack_replies(self._socket.recv_multipart())
        for _, code, _, payload in answers:
            if code is not Code.OK:
                raise SystemExit(f"limits: {code.name} {payload.decode('utf-8', 'replace')}")
        return [request_id for request_id, *_ in answers]

    def close(self) -> None:
        self._socket.close(0)


def measure(scratch: Path, pool: Pool, options: Options) -> list[dict[str, Any]]:
    """The medians of each part at each load, as a JSON document."""
    workload = WORKLOADS[_WORKLOAD]
    bases = bench_models.build([_WORKLOAD])
    server = pool.server(scratch, bases)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server.running())
        parts = _parts(stack, server, workload, scratch)
        (loop, *_) = stack.enter_context(bench_contenders.looping(_WORKLOAD, bases))
        parts.append(Part("TensorFlow alone, called in a loop", lambda plan: loop.load(workload, plan), (1,)))
        return [found for in_flight in LOADS for found in _in_turn(parts, in_flight, options)]


def _parts(stack: contextlib.ExitStack, server: Server, workload: Workload, scratch: Path) -> list[Part]:
    assert server.runtime_dir is not None
    context = stack.enter_context(zmq.Context())
    (worker,) = server.workers(workload.model)
    own = sockets.data_endpoint(server.runtime_dir, Incarnation(worker["incarnation"]))
    echo = f"ipc://{scratch}/echo"
    stack.enter_context(_echoing(echo))
    askers = [Asker(context, endpoint, workload) for endpoint in (own, echo)]
    for asker in askers:
        stack.callback(asker.close)
    address = server.address()
    return [
        Part(f"{server.name}: the whole way", lambda plan: bench_contenders.load(address, workload, plan)),
        Part(f"{server.name}: without a worker", lambda plan: bench_contenders.load(address, STATUS, plan)),
        Part("worker alone, with ZeroMQ", askers[0].load),
        Part("ZeroMQ alone", askers[1].load),
    ]


@contextlib.contextmanager
def _echoing(endpoint: str) -> Iterator[None]:
    command = [sys.executable, str(SCRIPTS / "bench_zmq_echo.py"), endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"the echo ended with {process.wait()}")
            yield
        finally:
            process.kill()


def _in_turn(parts: Sequence[Part], in_flight: int, options: Options) -> Iterator[dict[str, Any]]:
    able = [part for part in parts if in_flight in part.loads]
    rounds: dict[str, list[dict[str, float]]] = {part.name: [] for part in able}
    for turn in range(options.rounds):
        for part in able:
            figures = part.load(options.plan(in_flight))
            rounds[part.name].append({name: figures[name] for name in ("requests_per_s", "p50_us", "p99_us")})
        print(f"  {in_flight} in flight, round {turn + 1} of {options.rounds}: done", flush=True)
    for name, found in rounds.items():
        yield {"part": name, "in_flight": in_flight, "median": bench_figures.medians(found), "rounds": found}


def print_report(found: Sequence[dict[str, Any]]) -> None:
    """The table that a person reads."""
    rows = [
        [
            each["part"],
            each["in_flight"],
            *(f"{each['median'][name]:.0f}" for name in ("requests_per_s", "p50_us", "p99_us")),
        ]
        for each in found
    ]
    print(bench_figures.table(("part", "in flight", "requests/s", "p50 us", "p99 us"), rows))
