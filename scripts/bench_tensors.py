"""What a payload costs on its way between a frontend's process and a worker's: ZeroMQ's frames against shared memory.

Two processes and the socket between them, nothing else: a request comes in parts, is sent, and is read once as a
tensor; an answer is an array and its head, is sent, and taken as bytes. For the socket they are joined first. CPU time
is that of both processes, kernel and ZeroMQ's threads included; the two ways take turns. Linux.

`python bench_tensors.py ENDPOINT FOLDER` is the worker's side.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_figures
import numpy as np
import zmq

from modelpool.supervisor.wire import arena
from modelpool.supervisor.wire.arena import Arena, Block, Reader
from modelpool.supervisor.wire.parts import gathered, pieces_of

SIZES = (16 * 1024, 32 * 1024, 64 * 1024, 128 * 1024, 256 * 1024, 600_000, 4_000_000, 16_000_000, 64_000_000)
WAYS = ("request", "answer")
MEANS = ("socket", "shared")
_ARENA_BYTES = 256 << 20
_PART_BYTES = 64 * 1024
_HEAD = bytes(60)
"""In front of the values, as of a serialized request; it leaves them unaligned where nobody cares."""
_MOST_PER_ROUND, _BYTES_PER_ROUND = 200, 40_000_000
_TIMEOUT_MS = 60_000


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Microseconds per payload by size, way and means, as a JSON document."""
    folder = scratch / "tensors"
    folder.mkdir()
    fds = {name: arena.create(name, _ARENA_BYTES) for name in ("requests", "answers")}
    for name, fd in fds.items():
        (folder / name).symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
    endpoint = f"ipc://{folder}/socket"
    worker = subprocess.Popen([sys.executable, __file__, endpoint, str(folder)])
    try:
        near = _Near(endpoint, folder)
        cells = [_cell(near, way, size, rounds) for way in WAYS for size in SIZES]
        near.close()
        worker.wait(_TIMEOUT_MS / 1000)
    finally:
        worker.kill()
        worker.wait()
        for fd in fds.values():
            os.close(fd)
    return {"cells": cells}


def _cell(near: "_Near", way: str, size: int, rounds: int) -> dict[str, Any]:
    count = max(2, min(_MOST_PER_ROUND, _BYTES_PER_ROUND // size))
    found: dict[str, list[dict[str, float]]] = {means: [] for means in MEANS}
    for means in MEANS:
        near.run(way, means, size, 2)
    for _ in range(rounds):
        for means in MEANS:
            found[means].append(near.run(way, means, size, count))
    medians = {
        means: {name: statistics.median(each[name] for each in runs) for name in runs[0]}
        for means, runs in found.items()
    }
    print(f"  {way} of {size}: {medians['socket']['cpu_us']:.0f} / {medians['shared']['cpu_us']:.0f} us", flush=True)
    return {"way": way, "size_bytes": size, **medians}


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    rows = []
    for cell in report["cells"]:
        socket, shared = cell["socket"], cell["shared"]
        share = f"{shared['cpu_us'] / socket['cpu_us']:.2f}x"
        figures = [f"{cell[means][name]:.0f}" for name in ("cpu_us", "took_us") for means in MEANS]
        rows.append([cell["way"], f"{cell['size_bytes']:,}", *figures[:2], share, *figures[2:]])
    print("microseconds per payload, by the socket and through shared memory: CPU time of both processes, and duration")
    print(bench_figures.table(("way", "bytes", "CPU: socket", "shared", "", "took: socket", "shared"), rows))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Near:
    """The frontend's side."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, _TIMEOUT_MS)
        self._socket.connect(endpoint)
        writer, reader = Arena.open(folder / "requests"), Reader.open(folder / "answers")
        if writer is None or reader is None:
            raise SystemExit("tensors: no shared memory")
        self._writer, self._reader = writer, reader

    def run(self, way: str, means: str, size: int, count: int) -> dict[str, float]:
        """`count` payloads, one after the other: microseconds of each."""
        whole = _HEAD + os.urandom(size - len(_HEAD))
        parts = [whole[at : at + _PART_BYTES] for at in range(0, size, _PART_BYTES)]
        far_s = self._ask(b"cpu", way, means, size)
        near_s, began_s = _cpu_s(), time.monotonic()
        for _ in range(count):
            if way == "request":
                self._request(parts, means)
            else:
                self._answer(means)
        took_s, near_s = time.monotonic() - began_s, _cpu_s() - near_s
        far_s = self._ask(b"cpu", way, means, size) - far_s
        return {"cpu_us": (near_s + far_s) / count * 1e6, "took_us": took_s / count * 1e6}

    def _ask(self, what: bytes, way: str, means: str, size: int) -> float:
        self._socket.send_multipart([what, f"{way} {means} {size}".encode()])
        return float(self._socket.recv_multipart()[0])

    def _request(self, parts: list[bytes], means: str) -> None:
        block: Block | None = None
        if means == "shared":
            block = self._writer.put(pieces_of(gathered(parts)), len(_HEAD))
        if block is not None:
            self._socket.send_multipart([b"shared", b"", block.reference])
            self._socket.recv_multipart()
            self._socket.recv()  # the block is returned
            self._writer.free(block)
        else:
            self._socket.send(b"socket", zmq.SNDMORE)
            self._socket.send(b"".join(parts), copy=False)
            self._socket.recv_multipart()

    def _answer(self, means: str) -> None:
        self._socket.send_multipart([b"answer", means.encode()])
        frames = self._socket.recv_multipart()
        if len(frames) == 2:
            self._reader.read(frames[1])
            self._socket.send_multipart([b"returned", b""])

    def close(self) -> None:
        self._socket.send_multipart([b"end", b""])
        self._socket.close(1000)
        self._context.term()


class _Far:
    """The worker's side."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: Any = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, _TIMEOUT_MS)
        self._socket.bind(endpoint)
        writer, reader = Arena.open(folder / "answers"), Reader.open(folder / "requests")
        if writer is None or reader is None:
            raise SystemExit("tensors: no shared memory")
        self._writer, self._reader = writer, reader
        self._values = np.zeros(0, np.uint8)
        self._lent: list[Block] = []

    def serve(self) -> None:
        while True:
            what = self._socket.recv()
            frame = self._socket.recv(copy=False)
            if what == b"end":
                return
            if what == b"cpu":
                size = int(frame.bytes.split()[2])
                self._values = np.zeros(size - len(_HEAD), np.uint8)
                self._socket.send(f"{_cpu_s():.6f}".encode())
            elif what == b"returned":
                self._writer.free(self._lent.pop())
            elif what == b"answer":
                self._answer(frame.bytes == b"shared")
            else:
                self._request(what, frame)

    def _request(self, what: bytes, frame: Any) -> None:
        if what == b"shared":
            mapped, start, size = self._reader.view(self._socket.recv())
            values = np.frombuffer(mapped, np.uint8, size - len(_HEAD), start + len(_HEAD))
        else:
            values = np.frombuffer(frame.buffer, np.uint8)[len(_HEAD) :].copy()  # TensorFlow copies what is not aligned
        values.max()  # as little as a model may do with it
        del values, frame
        self._socket.send(b"done")
        if what == b"shared":
            self._socket.send(b"returned")

    def _answer(self, shared: bool) -> None:
        pieces = (_HEAD, self._values.data)
        block = self._writer.put(pieces_of(gathered(pieces))) if shared else None
        if block is not None:
            self._lent.append(block)
            self._socket.send_multipart([b"", block.reference])
        else:
            self._socket.send(b"".join(pieces), copy=False)


if __name__ == "__main__":
    _Far(sys.argv[1], Path(sys.argv[2])).serve()
