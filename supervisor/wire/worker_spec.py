"""What a worker is started with: one frozen object, given to the fork server, which forks the worker with it."""

from dataclasses import dataclass

from .ids import Incarnation
from .states import LoadPriority

NOT_DEADLY = -1
"""A `deadly_size_bytes` that no request has."""


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


# Of a version's folder, where its model is one of TensorFlow Lite.
TFLITE_FILE = "model.tflite"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All a worker needs to know; given to the fork server, which forks the worker with it.

    `cuda_visible_devices` is put into the worker's environment before TensorFlow touches a device ("-1": none).
    `warmup_iterations` is how often each warmup record runs. `auto_warmup`: without a warmup file, run each signature
    once on made-up inputs. An answer passes its golden request when |got - want| <= atol + rtol * |want|.
    `load_priority` holds until READY. `session_config`: a serialized tensorflow.ConfigProto.
    `check_method_names`: refuse signatures whose method name is not the call's. `tensor_content`: send numeric outputs
    of Predict so. `op_libraries` (files) and `python_modules` (names) are loaded before the model. `xla`: let the model
    compile by XLA. `tflite_interpreters`: so many run parts of one batch at the same time. `gpu_memory_limit_bytes`:
    what TensorFlow may take of the GPU; 0: no limit but the session's own. `deadly_size_bytes`: the worker dies of a
    request of this size, on purpose (`modelpool chaos`). `host_memory_bytes`: the process's own limit, which the
    supervisor sees to; 0 for none. `batching`: TF Serving's; with `per_model_batching` the version's own file says so,
    if there is one, and `batching` gives the threads. `auto_batching`: batches without any setting but
    `latency_target_ms` (0: none). `executors`: so many runs go on at the same time; 0: as many as the worker finds
    good. `run_again`: requests of a batch that failed may be executed one by one. `cpus`: those that it may use, all
    when empty; `cpu_weight`: its share of them, 100 at the most. `metrics`: somebody can ask for them.
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
    load_priority: LoadPriority
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
    executors: int = 0
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
