"""The fork server: imports TensorFlow once, touches no device, forks a worker for each request. Single-threaded.

`python -m modelpool.worker.fork_server CHANNEL_FD LIFELINE_FD LOG_LEVEL`. Requests are codec-encoded WorkerSpecs, one
SOCK_SEQPACKET message each, with the worker's descriptors; the answer to each is msgpack
`[incarnation, pid, error]`. Each worker is forked twice, so that it becomes a child of the supervisor (its subreaper)
and outlives this process.
"""

import gc
import logging
import os
import select
import socket
import sys
import time
import warnings
from typing import NoReturn

import msgpack

from modelpool.supervisor.wire import codec, lifeline
from modelpool.supervisor.wire import log as wire_log
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.worker_spec import WorkerSpec

from . import main as worker_main
from .main import Inherited

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 1 << 20
# Descriptors that come with a request: those of `Inherited`, but for the lifeline, which is the same for all.
_FDS = 3


def preload() -> None:
    """Import all that a worker needs. What TensorFlow prints while it looks for devices is for its own developers."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from . import (  # noqa: F401, PLC0415
        calls,
        extensions,
        golden,
        loader,
        log_files,
        logged_requests,
        profiler,
        request_log,
        serving,
        tfrecord,
        trace,
        warmup,
        warmup_recorder,
        xla,
    )

    # Objects made so far are never collected, so that a worker's collector does not touch, and copy, their pages.
    gc.collect()
    gc.freeze()


def serve(channel: socket.socket, lifeline_fd: int, log_level: str) -> None:
    """Fork workers until the supervisor is gone."""
    while True:
        ready, _, _ = select.select([channel.fileno(), lifeline_fd], [], [])
        if lifeline_fd in ready:
            return
        raw, fds, _, _ = socket.recv_fds(channel, _MAX_REQUEST_BYTES, _FDS)
        if not raw:
            return
        try:
            spec = _read_request(raw, fds)
            if spec is not None:
                pid, error_text = fork_worker(spec, channel, Inherited(lifeline_fd, *fds), log_level)
                channel.send(msgpack.packb([spec.incarnation, pid, error_text]))
        finally:
            for fd in fds:
                os.close(fd)


def _read_request(raw: bytes, fds: list[int]) -> WorkerSpec | None:
    """The spec in a request that can be carried out; None, said in the log, for any other."""
    try:
        spec = codec.decode(raw)
    except InvalidArgument as error:
        log.error("request refused %s", fields(error=error.message))
        return None
    if not isinstance(spec, WorkerSpec) or len(fds) != _FDS:
        names = fields(expected=f"WorkerSpec with {_FDS} descriptors", got=type(spec).__name__, descriptors=len(fds))
        log.error("request refused %s", names)
        return None
    return spec


def fork_worker(spec: WorkerSpec, channel: socket.socket, inherited: Inherited, log_level: str) -> tuple[int, str]:
    """The new worker's pid, or 0 and why there is none."""
    read_fd, write_fd = os.pipe()
    try:
        middle_pid = os.fork()
    except OSError as error:
        os.close(read_fd)
        os.close(write_fd)
        return 0, f"fork: {error}"
    if middle_pid == 0:
        os.close(read_fd)
        _fork_again(spec, channel, write_fd, inherited, log_level)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(middle_pid, 0)
    if not answer:
        return 0, "fork: the process in between died"
    pid, text = msgpack.unpackb(answer)
    return pid, text


def _fork_again(
    spec: WorkerSpec, channel: socket.socket, write_fd: int, inherited: Inherited, log_level: str
) -> NoReturn:
    """In the process in between: fork the worker, say its pid, exit."""
    middle_pid = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            os.close(write_fd)
            channel.close()
            worker_main.main(spec, middle_pid, inherited, log_level)
        os.write(write_fd, msgpack.packb([pid, ""]))
    except OSError as error:
        os.write(write_fd, msgpack.packb([0, f"fork: {error}"]))
    finally:
        os._exit(0)


def main() -> None:
    channel_fd, lifeline_fd, log_level = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    lifeline.ignore_terminal_signals()
    lifeline.die_with_parent(lifeline_fd)
    wire_log.configure("fork_server", log_level)
    # Python 3.12 and later warn of a fork beside other threads; the only one here is TensorFlow's, which sleeps.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    started_s = time.monotonic()
    preload()
    log.info("tensorflow imported %s", fields(seconds=f"{time.monotonic() - started_s:.2f}"))
    with socket.socket(fileno=channel_fd) as channel:
        serve(channel, lifeline_fd, log_level)


if __name__ == "__main__":
    main()
