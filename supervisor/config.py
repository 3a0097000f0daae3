"""The one frozen configuration of a running pool, built from the flags in `main` and handed to everything else."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from . import endpoint_config, session_config
from .endpoint_config import EndpointConfig
from .flags import Flags
from .model_config import ConfigError, ModelConfig, parse_model_config, single_model
from .restart import RestartPolicy
from .runtime_dir import default_crash_dir
from .service_manager import ServiceSocket
from .session_config import Platform
from .wire import sockets
from .wire.frontend_spec import Engine
from .wire.ids import Incarnation

# TF Serving loads a server's first models with so many threads per CPU (core/aspired_versions_manager.h,
# kDefaultInitialLoadThreads of model_servers/server_core.cc); loads are mostly reading.
_LOADS_PER_CPU = 4


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What the supervisor acts on. Ports of 0 and empty paths mean: do not listen there."""

    runtime_dir: Path
    grpc_port: int
    rest_port: int
    grpc_socket_path: str
    engine: Engine
    frontends: int
    rest_timeout_s: float
    max_request_bytes: int
    model_name: str
    model_base_path: str
    model_config_file: str
    model_config_poll_s: float
    source_poll_s: float
    max_loading: int
    platform: Platform
    endpoints: EndpointConfig
    check_method_names: bool
    tensor_content: bool
    drain_timeout_s: float
    lame_duck_s: float
    load_timeout_s: float
    pool_config_file: str
    reload_timeout_s: float
    exit_on_startup_failure: bool
    allow_labels_for_unavailable_versions: bool
    default_cache_dir: Path
    crash_dir: Path
    log_level: str
    profiler_dir: str = ""
    shared_memory_bytes: int = 0
    shared_memory_total_bytes: int = 0
    allow_chaos: bool = False
    service: ServiceSocket = field(default_factory=ServiceSocket)
    restart: RestartPolicy = field(default_factory=RestartPolicy)

    def read_models(self, previous: tuple[ModelConfig, ...] = ()) -> tuple[ModelConfig, ...]:
        """The models to serve, from the config file where there is one. Raises PoolError."""
        if not self.model_config_file:
            return single_model(self.model_name, self.model_base_path)
        return self.parse_models(self.models_text(), previous)

    def models_text(self) -> str:
        """The text of the model config file. Raises ConfigError."""
        try:
            return Path(self.model_config_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model_config_file: cannot read '{self.model_config_file}': {error}") from error

    def parse_models(self, text: str, previous: tuple[ModelConfig, ...] = ()) -> tuple[ModelConfig, ...]:
        """The models of the config file that has this text. Raises PoolError."""
        return parse_model_config(text, self.model_config_file, previous)

    @property
    def name(self) -> str:
        """A short one, that no other pool which runs on this host has."""
        return hashlib.sha256(str(self.runtime_dir).encode()).hexdigest()[:12]

    def data_socket(self, incarnation: Incarnation) -> Path:
        """The file of a worker's data socket."""
        return Path(sockets.data_endpoint(self.runtime_dir, incarnation).removeprefix("ipc://"))

    def listening(self) -> dict[str, object]:
        """Where clients connect, for people and the status document."""
        return {"grpc_port": self.grpc_port, "rest_port": self.rest_port, "grpc_socket_path": self.grpc_socket_path}


def from_flags(flags: Flags, runtime_dir: Path, default_cache_dir: Path, cpus: int) -> PoolConfig:
    """The configuration that the flags ask for, with the files that they name read. Raises PoolError."""
    return PoolConfig(
        runtime_dir=runtime_dir,
        grpc_port=flags.port,
        rest_port=0 if flags.rest_api_port == flags.port else flags.rest_api_port,
        grpc_socket_path=flags.grpc_socket_path,
        engine=Engine(flags.frontend),
        frontends=flags.frontends,
        rest_timeout_s=max(0.0, flags.rest_api_timeout_in_ms / 1000),
        max_request_bytes=flags.max_request_bytes,
        model_name=flags.model_name,
        model_base_path=flags.model_base_path,
        model_config_file=flags.model_config_file,
        model_config_poll_s=max(0, flags.model_config_file_poll_wait_seconds),
        source_poll_s=flags.file_system_poll_wait_seconds,
        max_loading=flags.num_load_threads or _LOADS_PER_CPU * cpus,
        platform=session_config.from_flags(flags),
        endpoints=endpoint_config.from_flags(flags),
        check_method_names=flags.enable_signature_method_name_check,
        tensor_content=flags.enable_serialization_as_tensor_content,
        drain_timeout_s=flags.drain_timeout_s,
        lame_duck_s=flags.lame_duck_s,
        load_timeout_s=flags.load_timeout_s,
        pool_config_file=flags.pool_config_file,
        reload_timeout_s=flags.reload_timeout_s,
        exit_on_startup_failure=flags.exit_on_startup_failure,
        allow_labels_for_unavailable_versions=flags.allow_version_labels_for_unavailable_models,
        default_cache_dir=default_cache_dir,
        crash_dir=Path(flags.crash_dir).absolute() if flags.crash_dir else default_crash_dir(default_cache_dir),
        log_level=flags.log_level,
        profiler_dir=flags.profiler_dir,
        shared_memory_bytes=flags.shared_memory_mb << 20,
        shared_memory_total_bytes=flags.shared_memory_total_mb << 20,
        allow_chaos=flags.allow_chaos,
        restart=RestartPolicy(
            max_load_retries=flags.max_num_load_retries,
            load_retry_interval_s=max(0.0, flags.load_retry_interval_micros / 1e6),
        ),
    )
