"""What no change of ours makes shorter of the way of a request that is alone, measured as a chain.

The load generator, an Envoy with pyvoy, ZeroMQ, TensorFlow's call, ZeroMQ, and Envoy again: the processes and sockets
of the whole way, with nothing of ours between them. Each part by itself takes much less, for it goes on where it
stopped; here each has slept, and wakes where others have used the caches. Its ends are `bench_floor_chain_app` and
`bench_floor_chain_worker`; this starts them.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bench_floor_server
import bench_memory
from bench_contenders import ServerContender
from bench_floor_chain_wire import BODY
from bench_server import SCRIPTS, Server

from modelpool.frontend import grpc_frames


@contextlib.contextmanager
def running(folder: Path, workload: str, version: Path, reply: bytes) -> Iterator[ServerContender]:
    """The chain, up, in a folder that is there and private. `version`: the directory of a model's version."""
    (folder / BODY).write_bytes(grpc_frames.plain(reply))
    server = bench_floor_server.server_of(f"chain of {workload}", bench_floor_server.CHAIN_APP, folder)
    with _worker(server, workload, version, folder), bench_floor_server.running(server):
        yield ServerContender(server)


@contextlib.contextmanager
def _worker(server: Server, workload: str, version: Path, folder: Path) -> Iterator[None]:
    """Its CPU time is counted as the server's."""
    command = [sys.executable, str(SCRIPTS / "bench_floor_chain_worker.py"), workload, str(version), str(folder)]
    environment = {**os.environ, bench_memory.MARK: server.mark, "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipe, log = subprocess.PIPE, server.log.open("ab")
    with log, subprocess.Popen(command, stdout=pipe, stderr=log, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                process.kill()  # it may have said something else, and go on
                raise SystemExit(f"{server.name}: the worker's end ended with {process.wait()}")
            yield
        finally:
            process.kill()
