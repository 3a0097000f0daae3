"""What flags and files say about TensorFlow in the workers: one `Platform`, TF Serving's platform "tensorflow".

The files are read here, at the start of the supervisor. Knows nothing of what a worker does with the result. After
TF Serving's `model_servers/server.cc:BuildAndStart`, `main.cc` and `servables/tensorflow/bundle_factory_util.cc`.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

from . import config_protos, text_proto
from .flags import Flags
from .model_config import TENSORFLOW_PLATFORM
from .wire import batching_params
from .wire.log import fields
from .wire.status import InvalidArgument
from .wire.worker_spec import TFLITE_FILE, Batching

log = logging.getLogger(__name__)

# TF Serving's default where a platform's configuration names no tags (bundle_factory_util.cc:GetSavedModelTags).
_DEFAULT_TAGS = ("serve",)
# Fields of a SessionBundleConfig that say how a server is built, where workers are built otherwise.
_UNUSED = {
    "session_run_load_threadpool_index": "a worker loads before it serves and has its threads to itself",
    "experimental_transient_ram_bytes_during_load": "resources are not estimated",
    "experimental_fixed_input_tensors": "not supported",
    "resource_estimation_uses_validation_result": "resources are not estimated",
    "num_tflite_pools": "a TensorFlow Lite model runs in one thread and has one pool",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """How every worker loads and runs its model; the fields are those of the same names in `WorkerSpec`."""

    session_config: bytes
    tags: tuple[str, ...]
    warmup: bool
    warmup_iterations: int
    xla: bool
    prefer_tflite: bool
    tflite_interpreters: int
    batching: Batching | None = None
    per_model_batching: bool = False


def from_flags(flags: Flags) -> Platform:
    """The platform that the flags ask for; `--platform_config_file` replaces the others. Raises PoolError."""
    if flags.platform_config_file:
        return _of_file(flags)
    return Platform(
        session_config=_session_config(flags).SerializeToString(deterministic=True),
        tags=tuple(tag for tag in flags.saved_model_tags.split(",") if tag),
        warmup=flags.enable_model_warmup,
        warmup_iterations=max(1, flags.num_request_iterations_for_warmup),
        xla=_xla(flags),
        prefer_tflite=flags.prefer_tflite_model,
        tflite_interpreters=flags.num_tflite_interpreters_per_pool,
        batching=_batching(flags),
        per_model_batching=flags.enable_batching and flags.enable_per_model_batching_parameters,
    )


def gpu_memory_fraction(platform: Platform) -> float:
    """The share of a GPU that each process takes at once; 0 when none is set (TF Serving would take all of it)."""
    config = config_protos.ConfigProto.FromString(platform.session_config)
    return float(config.gpu_options.per_process_gpu_memory_fraction)


def runs_on_cpu(platform: Platform, path: str) -> bool:
    """Whether workers load the version in this folder by TensorFlow Lite, which has no use for a GPU here."""
    return platform.prefer_tflite and os.path.isfile(os.path.join(path, TFLITE_FILE))


def _batching(flags: Flags) -> Batching | None:
    path = flags.batching_parameters_file
    if not flags.enable_batching:
        if path:
            raise InvalidArgument(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        return None
    if not path:
        return Batching(thread_pool_name="model_server_batch_threads")
    return batching_params.batching(
        text_proto.read(path, config_protos.BatchingParameters(), "batching_parameters_file")
    )


def _xla(flags: Flags) -> bool:
    """TF Serving has XLA off for the whole process unless one of the two is set, whatever the device (main.cc)."""
    return flags.xla_cpu_compilation_enabled or flags.xla_gpu_compilation_enabled


def _session_config(flags: Flags) -> Any:
    """The file's ConfigProto with the flags over it; a flag that is 0 leaves what the file says."""
    config = config_protos.ConfigProto()
    if flags.tensorflow_session_config_file:
        text_proto.read(flags.tensorflow_session_config_file, config, "tensorflow_session_config_file")
    if flags.per_process_gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    intra, inter = _parallelism(flags)
    if intra:
        config.intra_op_parallelism_threads = intra
    if inter:
        config.inter_op_parallelism_threads = inter
    if flags.mixed_precision == "bfloat16":
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = config_protos.REWRITER_ON
    return config


def _parallelism(flags: Flags) -> tuple[int, int]:
    """(intra, inter) op threads."""
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    both = flags.tensorflow_session_parallelism
    if intra > 0 and inter > 0 and both > 0:
        raise InvalidArgument(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )
    return (intra, inter) if intra > 0 or inter > 0 else (both, both)


def _of_file(flags: Flags) -> Platform:
    path = flags.platform_config_file
    config = _bundle_config(text_proto.read(path, config_protos.PlatformConfigMap(), "platform_config_file"), path)
    if config.session_target:
        raise InvalidArgument(f"--platform_config_file: '{path}': session_target: expected '', sessions are local")
    for name, why in _UNUSED.items():
        if config.ListFields() and any(field.name == name for field, _ in config.ListFields()):
            log.warning("platform_config_file: field without effect %s", fields(field=name, why=why))
    iterations = config.model_warmup_options.num_request_iterations.value
    return Platform(
        session_config=config.session_config.SerializeToString(deterministic=True),
        tags=tuple(config.saved_model_tags) or _DEFAULT_TAGS,
        warmup=config.enable_model_warmup,
        warmup_iterations=max(1, iterations),
        xla=_xla(flags),
        prefer_tflite=config.prefer_tflite_model,
        tflite_interpreters=max(1, config.num_tflite_interpreters_per_pool),
        batching=(
            batching_params.batching(config.batching_parameters) if config.HasField("batching_parameters") else None
        ),
    )


def _bundle_config(config_map: Any, path: str) -> Any:
    """The SessionBundleConfig of the platform "tensorflow", packed by itself or in its source adapter's message."""
    where = f"--platform_config_file: '{path}'"
    if TENSORFLOW_PLATFORM not in config_map.platform_configs:
        raise InvalidArgument(f"{where}: expected an entry of platform_configs for '{TENSORFLOW_PLATFORM}'")
    packed = config_map.platform_configs[TENSORFLOW_PLATFORM].source_adapter_config
    adapter, bundle = config_protos.SavedModelBundleSourceAdapterConfig(), config_protos.SessionBundleConfig()
    if packed.Unpack(adapter):
        return adapter.legacy_config
    if packed.Unpack(bundle):
        return bundle
    names = " or ".join(message.DESCRIPTOR.full_name for message in (adapter, bundle))
    raise InvalidArgument(f"{where}: source_adapter_config: expected a {names}, got {packed.type_url!r}")
