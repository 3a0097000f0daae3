"""The control plane: every message between the supervisor and its frontends and workers, as frozen data.

The supervisor's ROUTER tells peers apart by their identity, which carries the incarnation (see `sockets`); a message
therefore names an incarnation only where it speaks of somebody else.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import get_args

from .ids import Incarnation
from .states import Harm, ServableState, WorkerPhase
from .status import Code

NOT_DEADLY = -1
"""A `deadly_size_bytes` that no request has."""

# -- what a process is started with ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestLog:
    """A model's logging_config: which share of its requests is logged, and where.

    Files are named `filename_prefix` plus what tells them apart. A file ends with `max_file_bytes` or as many records
    as a warmup file may have; of a model's complete files the newest `max_files` are kept.
    """

    sampling_rate: float
    filename_prefix: str
    max_file_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True)
class Batching:
    """TF Serving's BatchingParameters (servables/tensorflow/session_bundle_config.proto) with its defaults.

    0 means that it was not given: of `num_batch_threads`, and of `max_execution_batch_size`, which then is
    `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 0
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All a worker needs to know; given to the fork server, which forks the worker with it.

    `cuda_visible_devices` is put into the worker's environment before TensorFlow touches a device ("-1": none).
    `warmup_iterations` is how often each warmup record runs. `auto_warmup`: without a warmup file, run each signature
    once on made-up inputs. An answer passes its golden request when |got - want| <= atol + rtol * |want|.
    `low_priority`: leave the CPU to others until READY. `session_config`: a serialized tensorflow.ConfigProto.
    `check_method_names`: refuse signatures whose method name is not the call's. `tensor_content`: send numeric outputs
    of Predict so. `op_libraries` (files) and `python_modules` (names) are loaded before the model. `xla`: let
    the model compile by XLA. `tflite_interpreters`: so many run parts of one batch at the same time.
    `gpu_memory_limit_bytes`: what TensorFlow may take of the GPU; 0: no limit but the session's own.
    `deadly_size_bytes`: the worker dies of a request of this size, on purpose (`modelpool chaos`).
    `host_memory_bytes`: the process's own limit, which the supervisor sees to; 0 for none.
    `batching`: TF Serving's; with `per_model_batching` the version's own file says so, if there is one, and `batching`
    gives the threads. `auto_batching`: batches without any setting but `latency_target_ms` (0: none). `executors`: so
    many threads run the model. `run_again`: requests of a batch that failed may be executed one by one. `cpus`: those
    that it may use, all when empty; `cpu_weight`: its share of them, 100 at the most. `metrics`: somebody can ask for
    them.
    """

    incarnation: Incarnation
    name: str
    version: int
    path: str
    device: str
    cuda_visible_devices: str
    data_endpoint: str
    control_endpoint: str
    tags: tuple[str, ...]
    warmup: bool
    warmup_iterations: int
    auto_warmup: bool
    golden_rtol: float
    golden_atol: float
    low_priority: bool
    heartbeat_s: float
    session_config: bytes = b""
    check_method_names: bool = False
    tensor_content: bool = False
    op_libraries: tuple[str, ...] = ()
    python_modules: tuple[str, ...] = ()
    xla: bool = False
    prefer_tflite: bool = False
    tflite_interpreters: int = 1
    host_memory_bytes: int = 0
    gpu_memory_limit_bytes: int = 0
    request_log: RequestLog | None = None
    deadly_size_bytes: int = NOT_DEADLY
    batching: Batching | None = None
    per_model_batching: bool = False
    auto_batching: bool = False
    latency_target_ms: float = 0.0
    executors: int = 1
    run_again: bool = True
    cpus: tuple[int, ...] = ()
    cpu_weight: int = 100
    replica: int = 0
    metrics: bool = True

    @property
    def log_name(self) -> str:
        """How the worker is called in the log, by itself and by the supervisor."""
        return f"worker[{self.name}/{self.version}#{self.incarnation}]"

    @property
    def process_name(self) -> str:
        """What `ps` and `top` show, of which the kernel keeps 15 bytes."""
        return f"mp:{self.version}/{self.name}"


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's side of TLS, PEM texts: TF Serving's SSLConfig (config/ssl_config.proto).

    `custom_ca` is "" for none; `client_verify`: a client must show a certificate that `custom_ca` has signed.
    """

    server_key: str
    server_cert: str
    custom_ca: str
    client_verify: bool


class Engine(StrEnum):
    """What a frontend is made of."""

    AUTO = "auto"
    GRPCIO = "grpcio"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class FrontendSpec:
    """All a frontend needs to know; written to its standard input. Port 0 and path "" mean: do not listen.

    `engine`: what ends the protocols; auto: Envoy where it can run, else grpcio.
    `grpc_arguments`: channel arguments of the gRPC server, values as they were written. `health`, `reflection` and
    `profiler`: serve that gRPC service. `metrics_path`: where REST serves the metrics, "" for nowhere. `frontends`: so
    many share the pool's requests; each may have that part of what a model may have waiting.
    """

    incarnation: Incarnation
    control_endpoint: str
    grpc_port: int
    rest_port: int
    grpc_socket_path: str
    rest_timeout_s: float
    max_request_bytes: int
    log_level: str
    rest_cors: bool = False
    grpc_tls: Tls | None = None
    rest_tls: Tls | None = None
    grpc_arguments: dict[str, str] = field(default_factory=dict)
    health: bool = False
    reflection: bool = False
    profiler: bool = False
    metrics_path: str = ""
    frontends: int = 1
    engine: Engine = Engine.GRPCIO


# -- worker to supervisor ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """First message of a worker, sent before it touches the model."""

    pid: int


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    phase: WorkerPhase


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is loaded and warm and the data endpoint is bound.

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
class WorkerBroken:
    """The last words of a worker that goes because only a new process can help: its CUDA context is lost."""

    message: str


@dataclass(frozen=True, slots=True)
class WorkerHeartbeat:
    """Sent each `heartbeat_s`. `served`: requests answered since the start; `busy_s`: age of the running one."""

    served: int
    in_flight: int
    busy_s: float


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
class RecordWarmupOf:
    """The command line to the supervisor: have a worker of this model record; of its newest version by default."""

    model: str
    version: int | None
    order: RecordWarmup


@dataclass(frozen=True, slots=True)
class WarmupRecorded:
    """Worker to supervisor, and on to the asker: how a recording ended. `records` were written when `code` is OK."""

    token: int
    code: Code
    message: str
    records: int


@dataclass(frozen=True, slots=True)
class RestartOf:
    """The command line to the supervisor: start the workers of this model, of all its versions by default, afresh."""

    token: int
    model: str
    version: int | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """How that ended: OK when all of them serve again; `message` says more, in lines."""

    token: int
    code: Code
    message: str


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
class ProfileOf:
    """A frontend or the command line to the supervisor: trace a worker of this model; of its newest version by default.

    `session` and `host` of the order may be "": the supervisor then chooses.
    """

    model: str
    version: int | None
    order: Profile


@dataclass(frozen=True, slots=True)
class EndProfile:
    """End the traces of this session now, as if their time were over. A frontend to the supervisor, and on."""

    session: str


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


@dataclass(frozen=True, slots=True)
class HurtWorker:
    """Hurt yourself.

    POISON: die as soon as a request of `amount` bytes begins to execute. OOM: take memory until you have no more; LEAK:
    so many MiB a second.
    """

    harm: Harm
    amount: int


@dataclass(frozen=True, slots=True)
class HurtModel:
    """The command line to the supervisor: hurt a worker of this model, on purpose; of its newest version by default.

    `amount`: POISON: the size of the deadly request in bytes; LEAK: MiB a second.
    """

    token: int
    model: str
    version: int | None
    harm: Harm
    amount: int


@dataclass(frozen=True, slots=True)
class HurtReply:
    """Supervisor to command line: who is hurt when `code` is OK, or why nobody is."""

    token: int
    code: Code
    message: str
    incarnation: Incarnation


# -- supervisor to frontend --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerRoute:
    incarnation: Incarnation
    endpoint: str


@dataclass(frozen=True, slots=True)
class VersionRoute:
    """One version: what clients are told of it, and the workers that take its requests (none unless AVAILABLE).

    `returning`: it was served, its workers are gone, and the next is on its way: requests may wait for it.
    """

    version: int
    state: ServableState
    code: Code
    message: str
    workers: tuple[WorkerRoute, ...]
    returning: bool = False


class RetryOnCrash(StrEnum):
    """What becomes of a request that a worker was executing when it died: tried once more, or never twice."""

    ONCE = "once"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RequestRules:
    """How frontends treat a model's requests: the keys of these names in the pool's file.

    `quarantine_s`: for how long whatever is the same as a poison request is refused. `max_queued_requests`: of all
    frontends together, at each worker of the model. `poison_dir`: where poison requests are kept, "" for nowhere.
    """

    retry_on_crash: RetryOnCrash = RetryOnCrash.ONCE
    quarantine_s: float = 300.0
    max_queued_requests: int = 1000
    poison_dir: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """`required`: without it the server is not ready."""

    name: str
    versions: tuple[VersionRoute, ...]
    labels: dict[str, int]
    required: bool = True
    rules: RequestRules = field(default_factory=RequestRules)


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything a frontend needs to route and to answer status questions. Epochs only grow."""

    epoch: int
    models: tuple[ModelRoute, ...]


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker's process is gone; whatever was sent to it will not be answered.

    Of this frontend's requests there, by their ids: those it was `executing`, which may have killed it, and those it
    had `finished` not long before, whose answers may be lost. All others had not begun.
    """

    incarnation: Incarnation
    cause: str
    executing: tuple[int, ...] = ()
    finished: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLoads:
    """What is known elsewhere of the workers that have siblings, by incarnation; an answer to FrontendStats.

    `elsewhere`: requests in flight there from other frontends. `busy_s`: for how long it has executed the present one.
    """

    elsewhere: dict[int, int]
    busy_s: dict[int, float]


@dataclass(frozen=True, slots=True)
class Pulse:
    """The supervisor's event loop turns. An answer to FrontendStats, where WorkerLoads is not."""


@dataclass(frozen=True, slots=True)
class OpenPorts:
    """Bind and listen now: every configured model has settled once."""


@dataclass(frozen=True, slots=True)
class LameDuck:
    """Say not ready from now on, and serve as before: the server is about to stop."""


@dataclass(frozen=True, slots=True)
class DrainFrontend:
    """Stop accepting, finish what is in flight within `timeout_s`, exit with code 0."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class StatusReply:
    """`body` is the JSON text of `GET /pool/v1/status`; `token` is the asker's own."""

    token: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A request that was executing at two deaths: whatever is the same is refused for this version for a while.

    From the frontend that found it to the supervisor, and on to all frontends, those that come later included.
    `fingerprint`: of the method and the payload, which has `size_bytes`; `until_ns`: on CLOCK_MONOTONIC.
    """

    name: str
    version: int
    fingerprint: bytes
    size_bytes: int
    until_ns: int


# -- frontend (or the `modelpool status` command) to supervisor --------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrontendHello:
    pid: int


@dataclass(frozen=True, slots=True)
class FrontendListening:
    """The ports are open."""


@dataclass(frozen=True, slots=True)
class FrontendBindFailed:
    """A port or socket could not be had; the frontend exits after it."""

    message: str


@dataclass(frozen=True, slots=True)
class RoutesAck:
    """From now on no new request goes to a worker that the table of `epoch` does not name."""

    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerReleased:
    """The frontend has nothing in flight on a worker that its table no longer names."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class StatusRequest:
    token: int


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """A ReloadConfigRequest of a client, serialized as it came."""

    token: int
    request: bytes


@dataclass(frozen=True, slots=True)
class ReloadReply:
    """Supervisor to frontend: how the reload ended; its status is the RPC's, too."""

    token: int
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class FrontendStats:
    """Requests in flight per worker incarnation, and in all answered since the start. Sent once a second."""

    in_flight: dict[int, int]
    answered: int


# -- metrics: worker or frontend to supervisor, and a frontend's question for the page ---------------------------


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One metric as it stands: absolute `values`, packed (see `metrics`)."""

    family: str
    labels: tuple[str, ...]
    values: bytes


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """The metrics of the sender that have changed since its last report. Sent about once a second, if any has."""

    samples: tuple[MetricSample, ...]


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """Asks for the page of all metrics of the pool."""

    token: int


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Supervisor to frontend: the page as text, for the question with this token."""

    token: int
    body: bytes


Message = (
    WorkerSpec
    | FrontendSpec
    | WorkerHello
    | WorkerProgress
    | WorkerReady
    | WorkerLoadFailed
    | WorkerBroken
    | WorkerHeartbeat
    | StopWorker
    | SetRequestLog
    | FrontendDied
    | RouteTable
    | WorkerDied
    | WorkerLoads
    | Pulse
    | Quarantined
    | OpenPorts
    | LameDuck
    | DrainFrontend
    | StatusReply
    | FrontendHello
    | FrontendListening
    | FrontendBindFailed
    | RoutesAck
    | WorkerReleased
    | StatusRequest
    | RecordWarmup
    | RecordWarmupOf
    | WarmupRecorded
    | RestartOf
    | Restarted
    | Profile
    | ProfileOf
    | EndProfile
    | Profiled
    | HurtWorker
    | HurtModel
    | HurtReply
    | ReloadRequest
    | ReloadReply
    | FrontendStats
    | MetricsReport
    | MetricsRequest
    | MetricsReply
)

MESSAGE_TYPES: dict[str, type] = {cls.__name__: cls for cls in get_args(Message)}
