"""Between the supervisor and a worker. `FromWorker` and `ToWorker` say which way each message goes."""

from dataclasses import dataclass

from .ids import Incarnation
from .states import Harm, WorkerPhase
from .status import Code
from .worker_spec import RequestLog

# -- worker to supervisor ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """First message of a worker, sent before it touches the model."""

    pid: int


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """The worker has come to this phase."""

    phase: WorkerPhase


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is loaded and warm; the data endpoint was bound before.

    `gpu_peak_bytes`: the most that TensorFlow's allocator had in use on the GPU; 0 without one.
    """

    load_s: float
    warmup_s: float
    gpu_peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WorkerLoadFailed:
    """The load or the warmup failed: a worker's last words. `permanent`: another try would end the same."""

    code: Code
    message: str
    permanent: bool
    phase: WorkerPhase = WorkerPhase.LOADING


@dataclass(frozen=True, slots=True)
class WorkerNotStarted:
    """The last words of a worker that could not take its place, which is no fault of its model's."""

    message: str


@dataclass(frozen=True, slots=True)
class WorkerBroken:
    """The last words of a worker that goes because only a new process can help: its CUDA context is lost."""

    message: str


@dataclass(frozen=True, slots=True)
class WorkerHeartbeat:
    """Sent each `heartbeat_s`. `served`: requests answered since the start; `busy_s`: age of the running one."""

    served: int
    in_flight: int
    busy_s: float


@dataclass(frozen=True, slots=True)
class WarmupRecorded:
    """Worker to supervisor, and on to the asker: how a recording ended. `records` were written when `code` is OK."""

    token: int
    code: Code
    message: str
    records: int


@dataclass(frozen=True, slots=True)
class Profiled:
    """Worker to supervisor, and on to the asker: how a trace ended. When `code` is OK, `file` was written.

    `empty`: nothing happened while it was traced.
    """

    token: int
    code: Code
    message: str
    file: str
    empty: bool


FromWorker = (
    WorkerHello
    | WorkerProgress
    | WorkerReady
    | WorkerLoadFailed
    | WorkerNotStarted
    | WorkerBroken
    | WorkerHeartbeat
    | WarmupRecorded
    | Profiled
)

# -- supervisor to worker ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Finish what is executing and exit with code 0. Sent when no frontend has a request there any more."""


@dataclass(frozen=True, slots=True)
class SetRequestLog:
    """From now on log requests so; None: log none. Sent when a served model's logging_config changes."""

    request_log: RequestLog | None


@dataclass(frozen=True, slots=True)
class FrontendDied:
    """A frontend's process is gone: nobody waits for the answers to what it has asked. Sent to every worker."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class RecordWarmup:
    """Write a warmup file from live traffic: up to `count` requests, evenly sampled over `seconds`, to `path`."""

    token: int
    count: int
    seconds: float
    path: str


@dataclass(frozen=True, slots=True)
class EndRecording:
    """Drop the recording of this token, if it is under way still: nobody waits for it. It is not answered."""

    token: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Trace a worker for `duration_s` into `<root>/<session>/<host>.xplane.pb`.

    TensorBoard looks below `plugins/profile` of its logdir, so that is what clients of TensorFlow give as the root.
    """

    token: int
    duration_s: float
    root: str
    session: str
    host: str


@dataclass(frozen=True, slots=True)
class EndProfile:
    """End the traces of this session now, as if their time were over. A frontend to the supervisor, and on."""

    session: str


@dataclass(frozen=True, slots=True)
class HurtWorker:
    """Hurt yourself.

    POISON: die as soon as a request of `amount` bytes begins to execute. OOM: take memory until you have no more; LEAK:
    so many MiB a second.
    """

    harm: Harm
    amount: int


ToWorker = StopWorker | SetRequestLog | FrontendDied | RecordWarmup | EndRecording | Profile | EndProfile | HurtWorker
