"""The models that an operator configured: text-format ModelServerConfig to frozen `ModelConfig`s, fully checked.

Pure: the caller reads the file. Knows nothing of what lies below a base path, nor of which versions run. Checks and
texts follow TF Serving's `model_servers/server_core.cc` (ReloadConfig) and `main.cc`, in its order.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import text_proto
from .version_policy import All, Latest, Specific, VersionPolicy
from .wire.protos import ModelServerConfig
from .wire.status import FailedPrecondition, InvalidArgument

TENSORFLOW_PLATFORM = "tensorflow"

# Values of tensorflow.serving.ModelType (model_server_config.proto), a deprecated field.
_TYPE_UNSPECIFIED = 0
_TYPE_TENSORFLOW = 1

_URI = re.compile(r"(?P<scheme>[a-zA-Z][0-9a-zA-Z.]*)://(?P<host>[^/]*)(?P<path>.*)", re.DOTALL)
# What a LogCollectorConfig may name as its type; both are TFRecord files, the only log that there is.
_LOG_TYPES = ("", "tfrecord")


class ConfigError(InvalidArgument):
    """A model configuration that cannot be used."""


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """Which share of a model's requests is logged, from 0 to 1, and where: an absolute path to be lengthened."""

    sampling_rate: float
    filename_prefix: str


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model. `base_path` is an absolute path or a URI; `labels` maps version labels to versions."""

    name: str
    base_path: str
    platform: str = TENSORFLOW_PLATFORM
    version_policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict, hash=False)
    logging: LoggingConfig | None = None


def parse_model_config(text: str, path: str, previous: Sequence[ModelConfig] = ()) -> tuple[ModelConfig, ...]:
    """The models of a text-format ModelServerConfig, in its order; none if it sets no model list.

    `path` is only for the error text. `previous` is the configuration in force, whose models must keep their
    platform, and which only another list replaces. Raises ConfigError, for syntax errors with line and column, and
    FailedPrecondition for no list after one: a file that is being written is empty for a moment.
    """
    try:
        config = text_proto.parse(text, ModelServerConfig(), path)
    except text_proto.TextProtoError as error:
        raise ConfigError(error.message) from error
    if previous and config.WhichOneof("config") is None:
        raise FailedPrecondition(
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
        )
    return models_of(config, previous)


def models_of(config: Any, previous: Sequence[ModelConfig] = ()) -> tuple[ModelConfig, ...]:
    """The models of a ModelServerConfig proto, checked; `previous` as in `parse_model_config`. Raises ConfigError."""
    if config.WhichOneof("config") == "custom_model_config":
        raise ConfigError("ModelServer does not yet support custom model config.")
    protos = config.model_config_list.config
    _check_names(protos)
    _check_base_paths(protos)
    _check_platforms_kept(protos, previous)
    return tuple(_model(proto) for proto in protos)


def single_model(name: str, base_path: str) -> tuple[ModelConfig, ...]:
    """The configuration that --model_name and --model_base_path stand for. Raises ConfigError."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=TENSORFLOW_PLATFORM)
    return models_of(config)


def split_uri(uri: str) -> tuple[str, str]:
    """(scheme, path) of a base path; the scheme is "" for a plain path. A URI's host is dropped, as TF drops it."""
    match = _URI.fullmatch(uri)
    return (match["scheme"], match["path"]) if match else ("", uri)


def _check_names(protos: Any) -> None:
    seen: set[str] = set()
    for proto in protos:
        if proto.name in seen:
            raise ConfigError(f"Illegal to list model {proto.name} multiple times in config list")
        seen.add(proto.name)


def _check_base_paths(protos: Any) -> None:
    for proto in protos:
        scheme, path = split_uri(proto.base_path)
        if not scheme and not path.startswith("/"):
            raise ConfigError(
                f"Expected model {proto.name} to have an absolute path or URI; got base_path()={proto.base_path}"
            )


def _check_platforms_kept(protos: Any, previous: Sequence[ModelConfig]) -> None:
    before = {model.name: model.platform for model in previous}
    for proto in protos:
        if proto.name not in before:
            continue
        platform = _platform(proto)
        if platform != before[proto.name]:
            raise ConfigError(
                f"Illegal to change a model's platform. For model {proto.name} platform was {before[proto.name]} "
                f"and new platform requested is {platform}"
            )


def _platform(proto: Any) -> str:
    """The platform that a model asks for, by model_platform or by the deprecated model_type."""
    platform: str = proto.model_platform
    if proto.model_type != _TYPE_UNSPECIFIED:
        if platform:
            raise ConfigError(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
            )
        if proto.model_type != _TYPE_TENSORFLOW:
            raise ConfigError(f"ModelServerConfig::model_type choice {proto.model_type} not supported.")
        return TENSORFLOW_PLATFORM
    if not platform:
        raise ConfigError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {proto.name}"
        )
    return platform


def _model(proto: Any) -> ModelConfig:
    platform = _platform(proto)
    if platform != TENSORFLOW_PLATFORM:
        raise ConfigError(f"Model {proto.name} requests unsupported platform {platform}")
    return ModelConfig(
        name=proto.name,
        base_path=proto.base_path,
        platform=platform,
        version_policy=_version_policy(proto.model_version_policy),
        labels=dict(proto.version_labels),
        logging=_logging(proto) if proto.HasField("logging_config") else None,
    )


def _version_policy(proto: Any) -> VersionPolicy:
    match proto.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(tuple(sorted(set(proto.specific.versions))))
        case _:
            return Latest(max(proto.latest.num_versions, 1))


def _logging(proto: Any) -> LoggingConfig:
    """A model's logging_config. What it asks for and nobody here does is refused, not passed over in silence."""
    given, where = proto.logging_config, f"Model {proto.name}: logging_config"
    sampling, collector = given.sampling_config, given.log_collector_config
    if given.HasField("custom_logging_config"):
        raise ConfigError(f"{where}.custom_logging_config: not supported")
    if sampling.per_task_sampling_configs or sampling.attributes:
        raise ConfigError(f"{where}.sampling_config: only sampling_rate is supported")
    if math.isnan(sampling.sampling_rate) or not 0 <= sampling.sampling_rate <= 1:
        raise ConfigError(
            f"{where}.sampling_config.sampling_rate: expected a number from 0 to 1, got {sampling.sampling_rate}"
        )
    if collector.type not in _LOG_TYPES:
        raise ConfigError(f"{where}.log_collector_config.type: expected '' or 'tfrecord', got '{collector.type}'")
    if not collector.filename_prefix.startswith("/"):
        raise ConfigError(
            f"{where}.log_collector_config.filename_prefix: expected an absolute path, "
            f"got '{collector.filename_prefix}'"
        )
    return LoggingConfig(sampling.sampling_rate, collector.filename_prefix)
