"""What each new process is told: the specification of a worker and of a frontend, from the configuration.

Reads nothing but which CPUs this process may use and how much memory there is.
"""

import logging
import os

from . import cpu_parts, host_memory
from .commands import Spawn
from .config import PoolConfig
from .frontends import SOCKET_SEAT
from .limits import BEAT_S
from .model_policy import BatchingMode, ModelPolicy
from .wire import sockets
from .wire.frontend_spec import Engine, FrontendSpec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.route_table import RetryOnCrash
from .wire.states import LoadPriority
from .wire.worker_spec import RequestLog, WorkerSpec

log = logging.getLogger(__name__)


def worker_spec(
    command: Spawn,
    config: PoolConfig,
    policy: ModelPolicy,
    *,
    request_log: RequestLog | None,
    load_priority: LoadPriority,
    deadly_size_bytes: int,
) -> WorkerSpec:
    """The worker that `command` asks for."""
    platform = config.platform
    return WorkerSpec(
        incarnation=command.incarnation,
        name=command.slot.servable.name,
        version=command.slot.servable.version,
        path=command.path,
        device=command.device.id,
        cuda_visible_devices=command.device.cuda_visible_devices,
        data_endpoint=sockets.data_endpoint(config.runtime_dir, command.incarnation),
        control_endpoint=sockets.control_endpoint(config.runtime_dir),
        tags=platform.tags,
        warmup=platform.warmup,
        warmup_iterations=platform.warmup_iterations,
        auto_warmup=policy.auto_warmup,
        golden_rtol=policy.golden_rtol,
        golden_atol=policy.golden_atol,
        load_priority=load_priority,
        heartbeat_s=BEAT_S,
        session_config=platform.session_config,
        check_method_names=config.check_method_names,
        tensor_content=config.tensor_content,
        op_libraries=policy.op_libraries,
        python_modules=policy.python_modules,
        xla=platform.xla,
        prefer_tflite=platform.prefer_tflite,
        tflite_interpreters=platform.tflite_interpreters,
        host_memory_bytes=int(policy.host_memory_mb * (1 << 20)),
        gpu_memory_limit_bytes=command.memory_limit_bytes,
        request_log=request_log,
        batching=platform.batching if policy.batching is BatchingMode.FLAGS else None,
        per_model_batching=platform.per_model_batching,
        auto_batching=policy.batching is BatchingMode.AUTO,
        latency_target_ms=policy.latency_target_ms,
        executors=policy.executors,
        run_again=policy.retry_on_crash is not RetryOnCrash.NEVER,
        cpus=_cpus(policy, command),
        cpu_weight=policy.cpu_weight,
        replica=command.slot.replica,
        metrics=bool(config.endpoints.metrics_path),
        deadly_size_bytes=deadly_size_bytes,
    )


def _cpus(policy: ModelPolicy, command: Spawn) -> tuple[int, ...]:
    """Those that a worker may use, () for all."""
    there, named = os.sched_getaffinity(0), policy.cpu_numbers()
    # Where none of those named is there, the worker says so.
    cpus = tuple(cpu for cpu in named if cpu in there) or named
    if policy.divide_cpus and command.parts > 1:
        return cpu_parts.part(cpus or there, command.part, command.parts)
    return cpus


def frontend_spec(incarnation: Incarnation, seat: int, config: PoolConfig, engine: Engine) -> FrontendSpec:
    """The frontend that is to fill a seat, made of `engine`."""
    endpoints = config.endpoints
    return FrontendSpec(
        incarnation=incarnation,
        control_endpoint=sockets.control_endpoint(config.runtime_dir),
        grpc_port=config.grpc_port,
        rest_port=config.rest_port,
        grpc_socket_path=config.grpc_socket_path if seat == SOCKET_SEAT else "",
        rest_timeout_s=config.rest_timeout_s,
        max_request_bytes=config.max_request_bytes,
        log_level=config.log_level,
        rest_cors=endpoints.rest_cors,
        grpc_tls=endpoints.grpc_tls,
        rest_tls=endpoints.rest_tls,
        grpc_arguments=endpoints.grpc_arguments,
        health=endpoints.health,
        reflection=endpoints.reflection,
        profiler=endpoints.profiler,
        access_log=endpoints.access_log,
        metrics_path=endpoints.metrics_path,
        frontends=config.frontends,
        most_heap_bytes=_most_heap_bytes(config.frontends) if engine is not Engine.GRPCIO else 0,
        engine=engine,
    )


def _most_heap_bytes(frontends: int) -> int:
    """Of each of so many; 0, which is no bound, where nobody says how much memory there is."""
    try:
        there_is_bytes = host_memory.total_bytes()
    except (OSError, ValueError) as error:
        log.warning("frontends have no bound of their memory %s", fields(error=error))
        return 0
    return host_memory.of_a_frontend(there_is_bytes, frontends)


def load_priority(*, urgent: bool, open_ports: bool, others_serve: bool) -> LoadPriority:
    """Of a worker that is started now. Clients of an urgent one wait; those of who serves are not to wait for it."""
    if not open_ports or (urgent and not others_serve):
        return LoadPriority.NORMAL
    return LoadPriority.BEHIND if urgent else LoadPriority.IDLE
