"""A worker's life after its fork: tie it to the supervisor, set its device, load, warm up, serve, go.

Runs in a process forked from the fork server, with TensorFlow imported and no device touched yet.
"""

import ctypes
import logging
import os
import select
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

from modelpool.supervisor.wire import codec, lifeline, sockets, stack_dump
from modelpool.supervisor.wire import log as wire_log
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.status import OK, Code, PoolError, Status, truncated
from modelpool.supervisor.wire.worker_messages import (
    WorkerBroken,
    WorkerHello,
    WorkerLoadFailed,
    WorkerNotStarted,
    WorkerProgress,
    WorkerReady,
)
from modelpool.supervisor.wire.worker_spec import WorkerSpec

from . import cpu_share, oom_score, permanence, priority
from . import session as sessions
from .chaos import Chaos
from .control import ControlLink
from .metrics import WorkerMetrics
from .session import Observers, Session
from .shared_payloads import SharedPayloads

if TYPE_CHECKING:
    from .calls import Calls
    from .plan import Model
    from .request_log import RequestLogger
    from .soundness import Seen

log = logging.getLogger(__name__)

LOAD_FAILED_EXIT_CODE = 3
BROKEN_EXIT_CODE = 4
NOT_STARTED_EXIT_CODE = 5
_NO_GPU = "-1"
_PR_SET_NAME = 15
_LINK_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """File descriptors that a worker has from its start."""

    lifeline: int
    recorder: int
    """Of its flight recorder."""
    stack: int
    """Where the stacks of its threads are written when it crashes or hangs."""
    stderr: int
    """Its standard error: a pipe that the supervisor reads."""


def run(spec: WorkerSpec, inherited: Inherited, log_level: str) -> int:
    """Serve one model until told to stop; the exit code."""
    _set_process_name(spec.process_name)
    wire_log.configure(spec.log_name, log_level)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    os.environ["CUDA_VISIBLE_DEVICES"] = spec.cuda_visible_devices
    cpu_share.confine(spec.cpus, spec.cpu_weight)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    link = ControlLink(spec, context, inherited.lifeline)
    link.start()
    link.say(WorkerHello(os.getpid()))
    flights = FlightRecorder(inherited.recorder)
    flights.deadly_size_bytes = spec.deadly_size_bytes
    link.chaos = Chaos(flights)
    try:
        socket = sessions.bind(context, spec.data_endpoint)  # now, since without one a load would be for nothing
    except PoolError as error:
        log.error("not started %s", fields(error=error.message))
        flights.leave(codec.encode(WorkerNotStarted(truncated(error.message))))
        code = NOT_STARTED_EXIT_CODE
    else:
        code = _serve(spec, socket, link, flights)
    link.close(_LINK_CLOSE_S)
    if code != BROKEN_EXIT_CODE:  # what is left of CUDA would hang or crash in its own end
        context.term()
    return code


def _serve(spec: WorkerSpec, socket: "zmq.Socket[bytes]", link: ControlLink, flights: FlightRecorder) -> int:
    """Load the model and serve it; the exit code. Closes the socket."""
    phase = _Phase(link)
    try:
        with priority.lowered(spec.load_priority):
            session, ready = _prepare(spec, socket, link, flights, phase)
    except PoolError as error:
        failed = error.status
    except Exception as error:
        log.exception("load failed %s", fields(path=spec.path))
        failed = Status(Code.INTERNAL, f"{type(error).__name__}: {error}")
    else:
        failed = OK
    if failed != OK:
        flights.leave(codec.encode(_load_failed(failed, phase.now)))
        socket.close(linger=0)
        return LOAD_FAILED_EXIT_CODE
    link.say(ready)
    broken = session.run()
    if broken:
        log.error("only a new process can help %s", fields(why=broken))
        flights.leave(codec.encode(WorkerBroken(truncated(broken))))
        session.close()
        return BROKEN_EXIT_CODE
    priority.give_way()
    session.close()
    for observer in (link.recorder, link.request_log, link.profiler):
        if observer is not None:
            observer.close(_LINK_CLOSE_S)
    return 0


class _Phase:
    """How far the worker has come, which it says whenever that changes."""

    def __init__(self, link: ControlLink) -> None:
        self.now = WorkerPhase.LOADING
        self._link = link

    def enter(self, phase: WorkerPhase) -> None:
        self.now = phase
        self._link.say(WorkerProgress(phase))


def _prepare(
    spec: WorkerSpec,
    socket: "zmq.Socket[bytes]",
    link: ControlLink,
    flights: FlightRecorder,
    phase: _Phase,
) -> tuple[Session, WorkerReady]:
    """Load and warm the model, and let it prove itself. Raises PoolError."""
    # Needs TensorFlow, as most that is imported below; the fork server has imported it all before the fork.
    from . import serving  # noqa: PLC0415
    from .executor import Executor  # noqa: PLC0415
    from .lent_inputs import LentInputs  # noqa: PLC0415
    from .straight_runs import StraightRunner  # noqa: PLC0415

    started_s = time.monotonic()
    phase.enter(WorkerPhase.LOADING)
    batching = serving.batching_of(spec)
    model = _load(spec)
    loaded_s = time.monotonic()
    phase.enter(WorkerPhase.WARMING)
    metrics = WorkerMetrics(
        link.metrics, spec.name, spec.version, spec.path, f"{spec.device}#{spec.replica}", on=spec.metrics
    )
    metrics.loaded()
    calls, seen = _prove(spec, model, metrics)
    serving.choose_threads(model, seen)
    serving.allow_splitting(model, seen)
    executor = Executor(model, calls.planners(), flights, again=spec.run_again)
    executors = serving.executors_of(spec, batching, model, metrics)
    work = serving.work_of(
        spec,
        batching,
        model,
        executor,
        executors=executors.most,
        metrics=metrics,
        seen=seen,
        forms=calls.predictor.forms,
    )
    warm_s = time.monotonic()
    session = Session(
        socket,
        link.stop_fd,
        _observers(spec, link, calls, metrics),
        executor=executor,
        work=work,
        executors=executors,
        shared=SharedPayloads(sockets.folder(spec.data_endpoint), spec.incarnation, LentInputs().have_back),
        straight=StraightRunner(model, calls.predictor.forms, flights),
    )
    link.on_frontend_died = session.drop_frontend
    return session, WorkerReady(loaded_s - started_s, warm_s - loaded_s, _gpu_peak_bytes(spec))


def _prove(spec: WorkerSpec, model: "Model", metrics: WorkerMetrics) -> "tuple[Calls, Seen]":
    """Warm the model and let it pass its golden requests; its calls, and what it was run with. Raises PoolError."""
    from . import serving  # noqa: PLC0415
    from .calls import Calls  # noqa: PLC0415
    from .model_spec import Identity  # noqa: PLC0415

    watched = serving.Watched(model)
    calls = Calls.of(
        watched,
        Identity(spec.name, spec.version),
        check_method_names=spec.check_method_names,
        tensor_content=spec.tensor_content,
    )
    _warm_up(spec, calls, metrics)
    _check_golden(spec, calls)
    return calls, watched.seen()


def _observers(spec: WorkerSpec, link: ControlLink, calls: "Calls", metrics: WorkerMetrics) -> Observers:
    """Who looks at the answers; the link commands them from now on, and the profiler."""
    from . import tfrecord, trace  # noqa: PLC0415
    from .profiler import Profiler  # noqa: PLC0415
    from .warmup_recorder import WarmupRecorder  # noqa: PLC0415

    link.recorder = recorder = WarmupRecorder(link.say, tfrecord.write, calls.readers())
    link.request_log = request_log = _request_log(spec, calls, metrics)
    link.profiler = Profiler(link.say, trace.Trace, trace.is_empty)
    return Observers(link.gauge, metrics, recorder, request_log)


def _request_log(spec: WorkerSpec, calls: "Calls", metrics: WorkerMetrics) -> "RequestLogger":
    """The model's request log, which logs as the specification says, if at all, until it is told otherwise."""
    from . import log_files, logged_requests, request_log, tfrecord  # noqa: PLC0415
    from .model_spec import Identity  # noqa: PLC0415

    maker = logged_requests.LogMaker(
        calls.readers(), calls.model.signatures, Identity(spec.name, spec.version), spec.tags
    )
    writer = log_files.Writer(spec.name, spec.version, spec.incarnation)
    record_format = log_files.RecordFormat(tfrecord.Appender, tfrecord.whole_bytes)
    logger = request_log.RequestLogger(
        request_log.Seams(
            make=maker.make,
            files=lambda settings: log_files.LogFiles(settings, writer, record_format),
            count=metrics.request_logged,
            methods=calls.readers().keys(),
        )
    )
    if spec.request_log is not None:
        logger.configure(spec.request_log)
    return logger


def _load(spec: WorkerSpec) -> "Model":
    """What the model needs first, then the model."""
    from . import extensions, loader, tflite, xla  # noqa: PLC0415

    extensions.load(spec.op_libraries, spec.python_modules)
    if not spec.xla:
        xla.disable()
    if spec.prefer_tflite and tflite.exists(spec.path):
        return tflite.load(spec.path, spec.tflite_interpreters)
    return loader.load(spec.path, spec.tags, spec.session_config, spec.gpu_memory_limit_bytes)


def _gpu_peak_bytes(spec: WorkerSpec) -> int:
    from . import loader, tflite  # noqa: PLC0415

    # To ask takes a context of TensorFlow's on the GPU, which one that runs on the CPU shall not have.
    on_cpu = spec.cuda_visible_devices == _NO_GPU or (spec.prefer_tflite and tflite.exists(spec.path))
    return 0 if on_cpu else loader.gpu_peak_bytes()


def _warm_up(spec: WorkerSpec, calls: "Calls", metrics: WorkerMetrics) -> None:
    """By the warmup file, or by the signatures where there is none. `warmup` off: by neither."""
    from . import prediction_logs, tfrecord, warmup  # noqa: PLC0415

    if not spec.warmup:
        return
    path = prediction_logs.WARMUP.path(spec.path)
    if os.path.exists(path):
        started_s = time.monotonic()
        try:
            count = warmup.warm_up(calls, path, tfrecord.read(path), spec.warmup_iterations)
        except PoolError as error:
            metrics.warmed_up(error.status, 0, time.monotonic() - started_s)
            raise
        metrics.warmed_up(OK, count, time.monotonic() - started_s)
        log.info("warm %s", fields(records=count, iterations=spec.warmup_iterations))
    elif spec.auto_warmup:
        count = warmup.auto_warm_up(calls.model)
        log.info("warm %s", fields(signatures=count))


def _check_golden(spec: WorkerSpec, calls: "Calls") -> None:
    """The canary gate: there is a file of golden requests, or there is none and nothing to prove. Raises PoolError."""
    from . import golden, prediction_logs, tfrecord  # noqa: PLC0415

    path = prediction_logs.GOLDEN.path(spec.path)
    if prediction_logs.exists(prediction_logs.GOLDEN, path):
        tolerance = golden.Tolerance(spec.golden_rtol, spec.golden_atol)
        count = golden.check(calls, path, tfrecord.read(path), tolerance)
        log.info("golden %s", fields(requests=count))


def _load_failed(status: Status, phase: WorkerPhase) -> WorkerLoadFailed:
    """The last words of a worker that could not load its model."""
    log.error("load failed %s", fields(status=status))
    return WorkerLoadFailed(status.code, truncated(status.message), permanence.is_permanent(status), phase)


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


def main(spec: WorkerSpec, middle_pid: int, inherited: Inherited, log_level: str) -> None:
    """Never returns."""
    code = 1
    try:
        tie_to_supervisor(middle_pid, inherited.lifeline)
        os.dup2(inherited.stderr, sys.stderr.fileno())
        os.close(inherited.stderr)
        stack_dump.enable(inherited.stack)
        oom_score.go_before_others()
        code = run(spec, inherited, log_level)
    except Exception:
        log.exception("worker failed")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
