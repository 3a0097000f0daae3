"""What ZeroMQ costs between two processes with nothing of ours at its ends: messages there and back, as large as ours.

Of what a frontend and a worker do with a message nothing is here: no event loop, no headers taken apart, each end
waits in its socket. CPU time is that of both processes, ZeroMQ's threads included. Linux.

`bench_floor_zmq.py ENDPOINT REPLY_BYTES` is the worker's end; says "ready" and serves until it is killed.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_figures
import bench_threads
import zmq
from bench_server import SCRIPTS

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code

_SILENT_MS = 10_000
_HEAD = data.pack_request(1, data.NO_DEADLINE_NS, 0, data.Method.PREDICT)
_REPLY_HEAD = data.pack_reply(1, Code.OK)
# In front of each payload of a message that has several.
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Traffic:
    """`burst` requests travel in a message, and so do their answers. `shared`: the payload of a request does not, but a
    reference to it.
    """

    in_flight: int
    burst: int
    request_bytes: int
    reply_bytes: int
    shared: bool = False

    @property
    def messages(self) -> int:
        """So many are under way."""
        return max(1, round(self.in_flight / self.burst))

    def request(self) -> list[bytes]:
        """The frames of a message to the worker."""
        if self.shared:
            return [_HEAD, b"", bytes(24)]
        return [_HEAD, bytes(_joined(self.burst, len(_HEAD), self.request_bytes))]

    def reply(self) -> list[bytes]:
        """The frames of a message to the frontend."""
        return [_REPLY_HEAD, bytes(_joined(self.burst, len(_REPLY_HEAD), self.reply_bytes))]


def _joined(burst: int, head_bytes: int, payload_bytes: int) -> int:
    return payload_bytes if burst == 1 else burst * (_LENGTH_BYTES + head_bytes + payload_bytes)


class Exchange:
    """The frontend's end, in this process. One thread."""

    def __init__(self, socket: "zmq.Socket[bytes]", far_pid: int, traffic: Traffic) -> None:
        self._socket = socket
        self._pids = {far_pid: "far", os.getpid(): "near"}
        self._traffic = traffic

    def load(self, warmup_s: float, duration_s: float) -> dict[str, float]:
        """Figures of a closed loop, per request."""
        message, count = self._traffic.request(), self._traffic.messages
        for _ in range(count):
            self._socket.send_multipart(message)
        self._exchange(message, warmup_s)
        before, began_s = self._ran_ns(), time.monotonic()
        took_s = self._exchange(message, duration_s)
        elapsed_s, ran_ns = time.monotonic() - began_s, self._ran_ns() - before
        for _ in range(count):
            self._socket.recv_multipart()
        requests = max(1, len(took_s) * self._traffic.burst)
        return {
            "requests_per_s": requests / elapsed_s,
            "cpu_us": ran_ns / 1000 / requests,
            # With one message under way each is asked when the one before has come.
            **bench_figures.latency_figures(took_s),
        }

    def _exchange(self, message: list[bytes], duration_s: float) -> list[float]:
        """How long each took to come since the one before."""
        send, receive = self._socket.send_multipart, self._socket.recv_multipart
        took_s = []
        now = time.monotonic()
        until = now + duration_s
        while now < until:
            receive()
            send(message)
            began, now = now, time.monotonic()
            took_s.append(now - began)
        return took_s

    def _ran_ns(self) -> int:
        return sum(thread.ran_ns for thread in bench_threads.read(self._pids).values())


@contextlib.contextmanager
def running(scratch: Path, traffic: Traffic) -> Iterator[Exchange]:
    """An exchange with a process of its own."""
    endpoint = f"ipc://{scratch}/floor"
    reply_bytes = str(len(traffic.reply()[1]))
    command = [sys.executable, str(SCRIPTS / "bench_floor_zmq.py"), endpoint, reply_bytes]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"the far end ended with {process.wait()}")
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.DEALER))
        sockets.configure_dealer(socket, sockets.identity(Peer.FRONTEND, Incarnation(1)), sockets.DATA_HWM)
        socket.setsockopt(zmq.RCVTIMEO, _SILENT_MS)
        socket.connect(endpoint)
        yield Exchange(socket, process.pid, traffic)


def _serve(socket: Any, reply: list[bytes]) -> None:
    while True:
        peer = socket.recv_multipart()[0]
        socket.send_multipart([peer, *reply])


def main() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        sockets.configure_router(socket, sockets.DATA_HWM)
        socket.bind(sys.argv[1])
        print("ready", flush=True)
        _serve(socket, [_REPLY_HEAD, bytes(int(sys.argv[2]))])


if __name__ == "__main__":
    main()
