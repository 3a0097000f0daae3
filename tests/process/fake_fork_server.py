"""The real fork server and the real double fork, with workers that need no TensorFlow.

What a worker does is the name of its model: `idle` waits for the supervisor's end, `exit` and `signal` die, `flight`
dies in the middle of a request, `deaf` hangs, `crash` has a segmentation fault, `chatter` writes as much as it can to
its standard error. A `path` is a file that `idle` makes when it has come so far.
"""

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.worker_spec import WorkerSpec
from modelpool.worker import fork_server
from modelpool.worker import main as worker_main


def run(spec: WorkerSpec, inherited: worker_main.Inherited, log_level: str) -> int:
    del log_level
    match spec.name:
        case "exit":
            return spec.version
        case "signal":
            os.kill(os.getpid(), spec.version)
            signal.pause()
        case "flight":
            flights = FlightRecorder(inherited.recorder)
            flights.end(flights.begin(5, 41, 1, 3, 1), 0, 2)
            flights.begin(5, 42, 1, 3, 3)
            os.kill(os.getpid(), signal.SIGKILL)
        case "orphan":
            # A grandchild that outlives its parent becomes the supervisor's, which must reap it.
            if os.fork() == 0:
                os._exit(0)
            return 0
        case "deaf":
            # Inside of a call that gives the GIL to nobody: PyDLL keeps it, and pause() ends with a signal's handler.
            print("about to hang", file=sys.stderr, flush=True)
            libc = ctypes.PyDLL(None)
            while True:
                libc.pause()
        case "crash":
            print("about to crash", file=sys.stderr, flush=True)
            ctypes.string_at(0)
        case "chatter":
            line = b"y" * 99 + b"\n"
            end_s = time.monotonic() + spec.version
            while time.monotonic() < end_s:
                os.write(2, line * 100)
            print("the last line", file=sys.stderr, flush=True)
            return 1
    if spec.path:
        Path(spec.path).touch()
    select.select([inherited.lifeline], [], [])
    return 70


if __name__ == "__main__":
    worker_main.run = run
    fork_server.preload = lambda: None
    fork_server.main()
