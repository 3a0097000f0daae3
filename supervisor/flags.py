"""The flags of `modelpool serve`: TF Serving's under their own names, and a few of our own.

`Flags` is the single source: names, types, defaults, help and limits of all flags are its fields, and the parser, the
help text and the list of flags without effect are derived from it (`command_line`). Knows nothing of what the values
are used for. Facts: TF Serving's `model_servers/main.cc` and `server.h`.
"""

import os
from dataclasses import Field, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from .wire.frontend_spec import Engine

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_PORT = 65535
MAX_FRONTENDS = 64

_CPUS = len(os.sched_getaffinity(0))
_SPEC = "flag"

T = TypeVar("T", bool, int, float, str)


class Section(StrEnum):
    """Headings of the help text, in its order."""

    MODELS = "Which models"
    LOADING = "Loading and warmup"
    LISTENING = "Where clients connect"
    REQUESTS = "Requests"
    BATCHING = "Batching"
    TENSORFLOW = "TensorFlow in the workers"
    SERVER = "The server itself"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a flag's field says beside its name, type and default. `inert`: why it has no effect, "" if it has."""

    help: str
    section: Section
    inert: str
    low: float
    high: float
    one_of: tuple[str, ...]


def flag(
    default: T,
    help_text: str,
    section: Section,
    *,
    inert: str = "",
    low: float = INT32_MIN,
    high: float = INT32_MAX,
    one_of: tuple[str, ...] = (),
) -> T:
    """A field of `Flags`. `low` and `high` bound numbers, both inclusive; `one_of` lists the texts allowed."""
    return field(default=default, metadata={_SPEC: Spec(help_text, section, inert, low, high, one_of)})


def spec(each: "Field[Any]") -> Spec:
    """What a field of `Flags` says of its flag."""
    found: Spec = each.metadata[_SPEC]
    return found


@dataclass(frozen=True, slots=True)
class Flags:
    """Every flag with its value. Defaults and types are TF Serving's."""

    model_base_path: str = flag(
        "", "Folder of the one model to serve, with its versions as subfolders.", Section.MODELS
    )
    model_name: str = flag("default", "Name of the model at --model_base_path.", Section.MODELS)
    model_config_file: str = flag(
        "", "ModelServerConfig in text format; then --model_name and --model_base_path are ignored.", Section.MODELS
    )
    model_config_file_poll_wait_seconds: int = flag(
        0, "Read --model_config_file again each so many seconds; 0: never.", Section.MODELS
    )
    file_system_poll_wait_seconds: int = flag(
        1, "Look for new versions each so many seconds; 0: once at the start; negative: never.", Section.MODELS
    )
    allow_version_labels_for_unavailable_models: bool = flag(
        False, "Let labels that are new or unchanged point to versions that are not available.", Section.MODELS
    )
    pool_config_file: str = flag(
        "", "The pool's own settings, for all models and for each, in TOML (see the README).", Section.MODELS
    )
    reload_timeout_s: float = flag(
        120.0,
        "Time that HandleReloadConfigRequest waits for newly named models, in seconds.",
        Section.MODELS,
        low=0,
    )

    num_load_threads: int = flag(0, "Models loaded at the same time; 0: chosen by the server.", Section.LOADING, low=0)
    num_unload_threads: int = flag(
        0,
        "Models unloaded at the same time.",
        Section.LOADING,
        low=0,
        inert="an unload is the exit of a worker process and needs no thread",
    )
    max_num_load_retries: int = flag(5, "Tries after the first failure to load a version.", Section.LOADING, low=0)
    load_retry_interval_micros: int = flag(
        60_000_000,
        "Time between two tries, in microseconds; negative: none.",
        Section.LOADING,
        low=INT64_MIN,
        high=INT64_MAX,
    )
    load_timeout_s: float = flag(
        3600.0,
        "Time that the load and warmup of a version may take before it is killed and tried again.",
        Section.LOADING,
        low=1,
    )
    saved_model_tags: str = flag("serve", "Tags of the graph to load, separated by commas.", Section.LOADING)
    enable_model_warmup: bool = flag(
        True, "Replay assets.extra/tf_serving_warmup_requests before a version takes requests.", Section.LOADING
    )
    num_request_iterations_for_warmup: int = flag(
        0, "Times that each warmup record runs; 0 or less: once.", Section.LOADING
    )
    remove_unused_fields_from_bundle_metagraph: bool = flag(
        True,
        "Drop the parts of a loaded MetaGraphDef that serving does not need.",
        Section.LOADING,
        inert="a worker keeps the signatures of a loaded MetaGraphDef and nothing else",
    )
    prefer_tflite_model: bool = flag(False, "Load model.tflite where a version has one.", Section.LOADING)
    num_tflite_pools: int = flag(
        _CPUS,
        "Interpreter pools of a TensorFlow Lite model.",
        Section.LOADING,
        low=1,
        inert="a TensorFlow Lite model runs in one thread and has one pool",
    )
    num_tflite_interpreters_per_pool: int = flag(
        1, "Interpreters of a TensorFlow Lite model, which run parts of a batch side by side.", Section.LOADING, low=1
    )
    flush_filesystem_caches: bool = flag(
        True,
        "Flush file system caches after the first load.",
        Section.LOADING,
        inert="each model is read by its own worker process; there is no shared cache to flush",
    )

    port: int = flag(8500, "TCP port for gRPC; 0: none.", Section.LISTENING, low=0, high=MAX_PORT)
    rest_api_port: int = flag(0, "TCP port for REST; 0: none.", Section.LISTENING, low=0, high=MAX_PORT)
    grpc_socket_path: str = flag("", "Unix socket on which gRPC is served as well.", Section.LISTENING)
    ssl_config_file: str = flag("", "SSLConfig in text format: TLS for gRPC.", Section.LISTENING)
    rest_ssl_config_file: str = flag("", "SSLConfig in text format: TLS for REST.", Section.LISTENING)
    use_alts_credentials: bool = flag(
        False, "Use Google ALTS credentials for gRPC: not supported, the start fails.", Section.LISTENING
    )
    grpc_channel_arguments: str = flag("", "Arguments of the gRPC server, as k=v,k=v.", Section.LISTENING)
    enable_grpc_healthcheck_service: bool = flag(False, "Serve grpc.health.v1.Health.", Section.LISTENING)
    enable_grpc_reflection: bool = flag(True, "Serve grpc.reflection.v1alpha.ServerReflection.", Section.LISTENING)
    enable_profiler: bool = flag(True, "Serve tensorflow.ProfilerService on the gRPC port.", Section.LISTENING)
    profiler_dir: str = flag(
        "",
        "Folder in and below which profiles ordered over gRPC are written; empty: none are taken.",
        Section.LISTENING,
    )

    frontend: str = flag(
        "auto",
        "What ends gRPC and REST: envoy, grpcio (with uvicorn), or auto: envoy where it can run.",
        Section.LISTENING,
        one_of=tuple(engine.value for engine in Engine),
    )
    frontends: int = flag(
        1,
        "Processes that take requests, all on the same ports.",
        Section.LISTENING,
        low=1,
        high=MAX_FRONTENDS,
    )
    access_log_file: str = flag(
        "", "File to which Envoy adds a line of JSON for each request; /dev/stdout is one.", Section.LISTENING
    )

    rest_api_timeout_in_ms: int = flag(
        30_000, "Time limit of a REST call, in milliseconds; 0 or less: none.", Section.REQUESTS
    )
    max_request_bytes: int = flag(
        INT32_MAX, "Biggest body of a request, gRPC and REST, in bytes.", Section.REQUESTS, low=1
    )
    shared_memory_mb: int = flag(
        256,
        "Most shared memory of each frontend, for large requests, and of each worker, for large answers, in MiB; "
        "beyond it, and with 0, they go through sockets.",
        Section.REQUESTS,
        low=0,
        high=1 << 20,
    )
    shared_memory_total_mb: int = flag(
        0,
        "Most shared memory of all frontends and workers together, in MiB; 0: half of the memory there is "
        "(of the host, or what its control group leaves to the pool).",
        Section.REQUESTS,
        low=0,
        high=1 << 20,
    )
    rest_api_enable_cors_support: bool = flag(False, "Add CORS headers to REST replies.", Section.REQUESTS)
    rest_api_num_threads: int = flag(
        4 * _CPUS,
        "Threads that serve REST.",
        Section.REQUESTS,
        low=1,
        inert="REST runs on an event loop, not on a thread pool",
    )
    grpc_max_threads: int = flag(
        4 * _CPUS,
        "Most threads that serve gRPC.",
        Section.REQUESTS,
        low=1,
        inert="frontends only forward bytes and size their own threads",
    )
    enable_signature_method_name_check: bool = flag(
        False, "Refuse signatures whose method name is not the call's.", Section.REQUESTS
    )
    enable_serialization_as_tensor_content: bool = flag(
        False, "Send numeric outputs of Predict as tensor_content.", Section.REQUESTS
    )

    enable_batching: bool = flag(False, "Run several requests in one call of the model.", Section.BATCHING)
    batching_parameters_file: str = flag(
        "", "BatchingParameters in text format; only with --enable_batching.", Section.BATCHING
    )
    enable_per_model_batching_parameters: bool = flag(
        False,
        "Read batching_params.pbtxt from each version's folder; one without it is not batched. The file of "
        "--batching_parameters_file then only says how many threads there are.",
        Section.BATCHING,
    )

    tensorflow_session_parallelism: int = flag(
        0, "Threads of a worker's session, 0: automatic.", Section.TENSORFLOW, low=0
    )
    tensorflow_intra_op_parallelism: int = flag(
        0, "Threads inside one operation, 0: automatic.", Section.TENSORFLOW, low=0
    )
    tensorflow_inter_op_parallelism: int = flag(
        0,
        "Operations run at the same time, 0: automatic, which is one after the other in a worker's own thread.",
        Section.TENSORFLOW,
        low=0,
    )
    tensorflow_session_config_file: str = flag(
        "", "tensorflow.ConfigProto in text format; flags of this section go over it.", Section.TENSORFLOW
    )
    platform_config_file: str = flag(
        "",
        "PlatformConfigMap in text format; it replaces the flags about sessions, tags, warmup and TensorFlow Lite.",
        Section.TENSORFLOW,
    )
    per_process_gpu_memory_fraction: float = flag(
        0.0,
        "Share of a GPU's memory that each worker takes at once, 0: what it needs, as it needs it.",
        Section.TENSORFLOW,
        low=0,
    )
    xla_cpu_compilation_enabled: bool = flag(
        False, "Let models compile by XLA; those that ask for it fail otherwise.", Section.TENSORFLOW
    )
    xla_gpu_compilation_enabled: bool = flag(
        False, "The same as --xla_cpu_compilation_enabled, for every device.", Section.TENSORFLOW
    )
    mixed_precision: str = flag(
        "", "Lower precision to compute in, on CPUs (oneDNN).", Section.TENSORFLOW, one_of=("", "bfloat16")
    )
    skip_initialize_tpu: bool = flag(
        False, "Do not initialize TPUs.", Section.TENSORFLOW, inert="TPUs are never initialized: they are not supported"
    )
    thread_pool_factory_config_file: str = flag(
        "",
        "ThreadPoolFactoryConfig in text format.",
        Section.TENSORFLOW,
        inert="it names a C++ class linked into TF Serving, which does not exist here",
    )

    runtime_dir: str = flag(
        "", "Private folder for sockets between the processes; empty: one named by the port.", Section.SERVER
    )
    crash_dir: str = flag(
        "", "Folder for a report of each death of a worker; empty: one in the user's cache folder.", Section.SERVER
    )
    log_level: str = flag(
        "INFO", "Least level that is logged.", Section.SERVER, one_of=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    drain_timeout_s: float = flag(
        30.0, "Time for requests in flight to finish when the server stops, in seconds.", Section.SERVER, low=0
    )
    lame_duck_s: float = flag(
        0.0,
        "Time to serve on after the signal to stop while saying not ready, in seconds, for load balancers to notice.",
        Section.SERVER,
        low=0,
    )
    allow_chaos: bool = flag(False, "Let `modelpool chaos` hurt models of this server on purpose.", Section.SERVER)
    exit_on_startup_failure: bool = flag(
        False, "Exit when a configured model fails at the start, as TF Serving does.", Section.SERVER
    )
    monitoring_config_file: str = flag("", "MonitoringConfig in text format: metrics on the REST port.", Section.SERVER)
    version: bool = flag(False, "Print the versions and exit.", Section.SERVER)
    help: bool = flag(False, "Print this text and exit.", Section.SERVER)
