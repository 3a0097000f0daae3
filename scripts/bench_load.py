"""The load generator, a process of its own: asks one request again and again and prints what it saw as JSON.

Closed loop: so many requests are in flight all the time. Open loop (`--rate`): they are sent at times fixed
beforehand, whether answers came or not, and a latency counts from the time at which the request was meant to be sent;
so a pause of the server or of the generator is seen by all who would have waited (no coordinated omission). Bytes on
non-blocking sockets by `bench_http2` and `bench_http1`: a tenth of the CPU of grpcio's client. Every answer is checked:
the bytes of one that is new, by its meaning, and the others by being one of those.
"""

import argparse
import gc
import itertools
import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_figures
import bench_workloads
from bench_http1 import Http1
from bench_http2 import Http2
from bench_plan import CONNECTIONS, Plan

Connection = Http1 | Http2
Check = Callable[[bytes], bool]

_MOST_OPEN = 2000  # requests of an open loop: beyond these the server has lost
_READ_BYTES = 1 << 18
_IOVECS = 256
_KNOWN_ANSWERS = 4096
_LAST_ANSWERS_S = 10.0


@dataclass(slots=True, eq=False)
class Peer:
    """One connection with its socket; `begun` are the times of the requests without an answer."""

    connection: Connection
    socket: socket.socket
    begun: dict[int, float] = field(default_factory=dict)
    writes: bool = False


@dataclass(slots=True)
class Seen:
    """What came of the requests. `spans`: meant or begun, and ended. `late_s`: sent after they were meant to be."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    answers: int = 0
    failures: int = 0
    wrong: int = 0

    @property
    def settled(self) -> int:
        return self.answers + self.failures + self.wrong


class Load:
    """Runs one plan over some connections. Single-threaded."""

    def __init__(self, peers: list[Peer], plan: Plan, check: Check) -> None:
        self._peers = peers
        self._plan = plan
        self._check = check
        self._known: set[bytes] = set()
        self._by_fd = {peer.socket.fileno(): peer for peer in peers}
        self._poll = select.epoll()
        for fd in self._by_fd:
            self._poll.register(fd, select.EPOLLIN)
        self.seen = Seen()

    def run_closed(self) -> None:
        """Keep the requests in flight until the time is over."""
        plan = self._plan
        began = time.monotonic()
        self.measured_from, self.measured_until = began + plan.warmup_s, began + plan.warmup_s + plan.duration_s
        for i in range(plan.in_flight):
            self._ask(self._peers[i % len(self._peers)], time.monotonic())
        for peer in self._peers:
            self._flush(peer)
        while (now := time.monotonic()) < self.measured_until:
            for peer, finished in self._answered(self.measured_until - now):
                now = time.monotonic()
                for _ in range(finished):
                    self._ask(peer, now)
                self._flush(peer)
            if plan.requests and self.seen.settled >= plan.requests:
                self.measured_until = time.monotonic()

    def run_open(self) -> None:
        """Send at the times of the plan; wait for the last answers."""
        plan = self._plan
        total_s = plan.warmup_s + plan.duration_s
        began = time.monotonic() + 0.05
        times = deque(bench_figures.arrivals(plan.rate_per_s, total_s, plan.arrivals, plan.seed))
        self.measured_from, self.measured_until = began + plan.warmup_s, began + total_s
        give_up = self.measured_until + _LAST_ANSWERS_S
        while (now := time.monotonic()) < give_up and (times or any(peer.begun for peer in self._peers)):
            asked = set()
            next_s = give_up
            while times:
                meant = began + times[0]
                peer = min(self._peers, key=lambda each: each.connection.open)
                if peer.connection.open >= peer.connection.max_streams:
                    break
                if meant > now:
                    next_s = meant
                    break
                if sum(each.connection.open for each in self._peers) >= _MOST_OPEN:
                    self.seen.failures += len(times)
                    times.clear()
                    break
                times.popleft()
                self._ask(peer, meant)
                asked.add(peer)
                if meant >= self.measured_from:
                    self.seen.late_s.append(time.monotonic() - meant)
            for peer in asked:
                self._flush(peer)
            for peer, _ in self._answered(next_s - time.monotonic()):
                self._flush(peer)
        self.seen.failures += len(times) + sum(len(peer.begun) for peer in self._peers)

    def close(self) -> None:
        self._poll.close()
        for peer in self._peers:
            peer.socket.close()

    def _ask(self, peer: Peer, begun: float) -> None:
        peer.begun[peer.connection.ask()] = begun

    def _answered(self, wait_s: float) -> list[tuple[Peer, int]]:
        """Wait for the sockets and note the answers; the connections on which something came, and how many answers."""
        answered = []
        for peer, mask in self._wait(max(0.0, wait_s)):
            count = 0
            if mask & ~select.EPOLLOUT:
                data = peer.socket.recv(_READ_BYTES)
                if not data:
                    raise SystemExit("the server closed a connection")
                now = time.monotonic()
                finished = peer.connection.receive(data)
                for stream, answer in finished:
                    self._note(peer.begun.pop(stream), now, answer)
                count = len(finished)
            answered.append((peer, count))
        return answered

    def _wait(self, wait_s: float) -> list[tuple[Peer, int]]:
        """What epoll says; it rounds times up to whole milliseconds, which is too coarse for short waits."""
        if wait_s < 0.002:
            select.select([self._poll], [], [], wait_s)
            wait_s = 0.0
        return [(self._by_fd[fd], mask) for fd, mask in self._poll.poll(wait_s)]

    def _note(self, begun: float, now: float, answer: bytes | None) -> None:
        seen = self.seen
        if not answer:
            seen.failures += 1
            return
        if answer not in self._known:
            if not self._check(answer):
                seen.wrong += 1
                return
            if len(self._known) < _KNOWN_ANSWERS:
                self._known.add(answer)
        seen.answers += 1
        seen.spans.append((begun, now))

    def _flush(self, peer: Peer) -> None:
        """Write what the connection has to say; what the socket does not take waits for it."""
        out = peer.connection.out
        while out:
            try:
                sent = peer.socket.sendmsg(out if len(out) <= _IOVECS else list(itertools.islice(out, _IOVECS)))
            except BlockingIOError:
                break
            while sent:
                piece = out.popleft()
                if sent < len(piece):
                    out.appendleft(memoryview(piece)[sent:])
                    break
                sent -= len(piece)
        if bool(out) != peer.writes:
            peer.writes = bool(out)
            self._poll.modify(peer.socket, select.EPOLLIN | (select.EPOLLOUT if out else 0))

    def figures(self, cpu_s: float) -> dict[str, float]:
        """Of the measured time; a request belongs to it by its end, in an open loop by when it was meant to be sent."""
        seen, plan = self.seen, self._plan
        by = 0 if plan.rate_per_s else 1
        inside = [span for span in seen.spans if self.measured_from <= span[by] <= self.measured_until]
        took_s = self.measured_until - self.measured_from
        swing = bench_figures.swing(inside, self.measured_from, self.measured_until) if plan.rate_per_s else None
        return {
            "requests_per_s": len(inside) / took_s,
            **bench_figures.latency_figures(ended - begun for begun, ended in inside),
            "answers": seen.answers,
            "failures": seen.failures,
            "wrong": seen.wrong,
            "generator_cpu": cpu_s / (plan.warmup_s + took_s),
            **({} if swing is None else {"swing": swing}),
            "late_p99_us": bench_figures.latency_figures(seen.late_s)["p99_us"],
        }


def connect(address: str, path: str, body: bytes, rest: bool, count: int) -> list[Peer]:
    """So many connections to the server, ready to ask."""
    host, _, port = address.rpartition(":")
    peers = []
    for _ in range(count):
        connection = (Http1 if rest else Http2)(address, path, body)
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        peers.append(Peer(connection, sock))
    return peers


def parse_plan(args: Any, rest: bool) -> Plan:
    connections = args.in_flight if rest else args.connections if args.rate else min(args.connections, args.in_flight)
    return Plan(
        args.in_flight, args.warmup_s, args.duration_s, connections, args.rate, args.arrivals, args.seed, args.requests
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Load on one server, of one workload; prints figures as JSON.")
    parser.add_argument("--address", required=True, help="HOST:PORT, of the protocol that the workload speaks")
    parser.add_argument("--workload", default="tiny", choices=sorted(bench_workloads.ASKABLE))
    parser.add_argument("--in_flight", type=int, required=True, help="open loop, REST: the number of connections")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"gRPC: at most so many ({CONNECTIONS})")
    parser.add_argument("--warmup_s", type=float, default=1.0)
    parser.add_argument("--duration_s", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=0.0, help="open loop with so many requests/s; 0: closed loop")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=0, help="closed loop: end after so many answers")
    parser.add_argument("--raw", type=Path, help="file for the times of each request, as JSON")
    args: Any = parser.parse_args()
    workload = bench_workloads.ASKABLE[args.workload]
    plan = parse_plan(args, workload.rest)
    peers = connect(args.address, workload.path, workload.request(), workload.rest, plan.connections)
    load = Load(peers, plan, workload.is_right)
    gc.disable()  # it makes no cycles, and a collection of all that was imported would be a pause of 10 ms
    cpu_before_s = time.process_time()
    (load.run_open if plan.rate_per_s else load.run_closed)()
    print(json.dumps(load.figures(time.process_time() - cpu_before_s)))
    if args.raw:
        args.raw.write_text(json.dumps(load.seen.spans), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
