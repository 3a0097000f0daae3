"""A worker's life after its fork: tie it to the supervisor, set its device, load, warm up, serve, go.

Runs in a process forked from the fork server, with TensorFlow imported and no device touched yet.
"""

import ctypes
import logging
import os
import select
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import zmq

from modelpool.supervisor.wire import lifeline
from modelpool.supervisor.wire import log as wire_log
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import (
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
    WorkerSpec,
)
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.status import Code, PoolError, Status, truncated

from . import priority
from .control import ControlLink
from .session import Session

if TYPE_CHECKING:
    from .calls import Calls

log = logging.getLogger(__name__)

LOAD_FAILED_EXIT_CODE = 3
_PR_SET_NAME = 15
_LINK_CLOSE_S = 2.0
# What another try would end the same with. NOT_FOUND is not among them: a file may be on its way.
_PERMANENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.DATA_LOSS,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
    }
)


def run(spec: WorkerSpec, lifeline_fd: int, log_level: str) -> int:
    """Serve one model until told to stop; the exit code."""
    _set_process_name(f"mp:{spec.version}/{spec.name}")
    wire_log.configure(f"worker[{spec.name}/{spec.version}#{spec.incarnation}]", log_level)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    os.environ["CUDA_VISIBLE_DEVICES"] = spec.cuda_visible_devices
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    link = ControlLink(spec, context, lifeline_fd)
    link.start()
    link.say(WorkerHello(os.getpid()))
    try:
        with priority.idle(spec.low_priority):
            session, ready = _prepare(spec, context, link)
    except PoolError as error:
        return _fail(link, context, error.status)
    except Exception as error:
        log.exception("load failed %s", fields(path=spec.path))
        return _fail(link, context, Status(Code.INTERNAL, f"{type(error).__name__}: {error}"))
    link.say(ready)
    session.run()
    priority.give_way()
    session.close()
    if link.recorder is not None:
        link.recorder.close(_LINK_CLOSE_S)
    link.close(_LINK_CLOSE_S)
    context.term()
    return 0


def _prepare(
    spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]", link: ControlLink
) -> tuple[Session, WorkerReady]:
    """Load and warm the model, let it prove itself, and bind its endpoint. Raises PoolError."""
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415 - needs TensorFlow, as do the others here

    from . import loader, request, tfrecord  # noqa: PLC0415 - imported by the fork server before the fork
    from .calls import Calls  # noqa: PLC0415
    from .model_spec import Identity  # noqa: PLC0415
    from .warmup_recorder import Readers, WarmupRecorder  # noqa: PLC0415

    started_s = time.monotonic()
    link.say(WorkerProgress(WorkerPhase.LOADING))
    model = loader.load(spec.path, spec.tags)
    loaded_s = time.monotonic()
    link.say(WorkerProgress(WorkerPhase.WARMING))
    calls = Calls.of(model, Identity(spec.name, spec.version))
    _warm_up(spec, calls)
    _check_golden(spec, calls)
    warm_s = time.monotonic()
    handlers = {Method.PREDICT: calls.predictor.grpc, Method.REST_PREDICT: calls.predictor.rest}
    readers: Readers = {
        Method.PREDICT: partial(request.parse, predict_pb2.PredictRequest),
        Method.REST_PREDICT: calls.predictor.request_of_body,
    }
    recorder = WarmupRecorder(link.say, tfrecord.write, readers)
    session = Session(context, spec.data_endpoint, handlers, link.gauge, link.stop_fd, recorder=recorder)
    link.recorder = recorder
    return session, WorkerReady(loaded_s - started_s, warm_s - loaded_s)


def _warm_up(spec: WorkerSpec, calls: "Calls") -> None:
    """By the warmup file, or by the signatures where there is none. `warmup` off: by neither."""
    from . import prediction_logs, tfrecord, warmup  # noqa: PLC0415

    if not spec.warmup:
        return
    path = prediction_logs.WARMUP.path(spec.path)
    if os.path.exists(path):
        count = warmup.warm_up(calls, path, tfrecord.read(path), spec.warmup_iterations)
        log.info("warm %s", fields(records=count, iterations=spec.warmup_iterations))
    elif spec.auto_warmup:
        count = warmup.auto_warm_up(calls.model)
        log.info("warm %s", fields(signatures=count))


def _check_golden(spec: WorkerSpec, calls: "Calls") -> None:
    """The canary gate: there is a file of golden requests, or there is none and nothing to prove."""
    from . import golden, prediction_logs, tfrecord  # noqa: PLC0415

    path = prediction_logs.GOLDEN.path(spec.path)
    if os.path.exists(path):
        tolerance = golden.Tolerance(spec.golden_rtol, spec.golden_atol)
        count = golden.check(calls, path, tfrecord.read(path), tolerance)
        log.info("golden %s", fields(requests=count))


def _fail(link: ControlLink, context: "zmq.Context[zmq.Socket[bytes]]", status: Status) -> int:
    """Say why, and see the message off: ending the context waits for what lingers."""
    log.error("load failed %s", fields(status=status))
    link.say(WorkerLoadFailed(status.code, truncated(status.message), status.code in _PERMANENT))
    link.close(_LINK_CLOSE_S)
    context.term()
    return LOAD_FAILED_EXIT_CODE


def tie_to_supervisor(middle_pid: int, lifeline_fd: int) -> None:
    """Die when the supervisor dies, even when stopped: by prctl(PR_SET_PDEATHSIG), once it has become our parent.

    The process that forked us exits at once; a death signal set before that would be its own. Its pidfd is readable
    only when its children have been handed over (kernel/exit.c: exit_notify).
    """
    if os.getppid() == middle_pid:
        try:
            middle = os.pidfd_open(middle_pid)
        except ProcessLookupError:
            pass
        else:
            select.select([middle], [], [])
            os.close(middle)
    lifeline.die_with_parent(lifeline_fd)


def _set_process_name(name: str) -> None:
    """What `ps` and `top` show; the kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def main(spec: WorkerSpec, middle_pid: int, lifeline_fd: int, log_level: str) -> None:
    """Never returns."""
    code = 1
    try:
        tie_to_supervisor(middle_pid, lifeline_fd)
        code = run(spec, lifeline_fd, log_level)
    except Exception:
        log.exception("worker failed")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
