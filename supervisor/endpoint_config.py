"""What flags and files say about the ports that clients use, beside their numbers: one `EndpointConfig`.

The files are read here, at the start of the supervisor; the frontends get the result. After TF Serving's
`model_servers/server.cc`: BuildServerCredentials, parseGrpcChannelArgs, BuildAndStart.
"""

import os
from dataclasses import dataclass
from typing import Any

from . import config_protos, text_proto
from .flags import Flags
from .wire.frontend_spec import Engine, Tls
from .wire.status import InvalidArgument, Unimplemented

# TF Serving's PrometheusExporter::kPrometheusPath (util/prometheus_exporter.cc).
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """How the ports are served; the fields are those of the same names in `FrontendSpec`."""

    grpc_tls: Tls | None
    rest_tls: Tls | None
    grpc_arguments: dict[str, str]
    metrics_path: str
    rest_cors: bool
    health: bool
    reflection: bool
    profiler: bool
    access_log: str


def from_flags(flags: Flags) -> EndpointConfig:
    """The configuration that the flags ask for. Raises PoolError."""
    if flags.use_alts_credentials:
        if flags.ssl_config_file:
            raise InvalidArgument("Only one of --use_alts_credentials and --ssl_config_file can be set.")
        raise Unimplemented("--use_alts_credentials: ALTS is not supported, use --ssl_config_file for TLS")
    return EndpointConfig(
        grpc_tls=_tls(flags.ssl_config_file, "ssl_config_file"),
        rest_tls=_tls(flags.rest_ssl_config_file, "rest_ssl_config_file"),
        grpc_arguments=channel_arguments(flags.grpc_channel_arguments),
        metrics_path=_metrics_path(flags.monitoring_config_file),
        rest_cors=flags.rest_api_enable_cors_support,
        health=flags.enable_grpc_healthcheck_service,
        reflection=flags.enable_grpc_reflection,
        profiler=flags.enable_profiler,
        access_log=_access_log(flags),
    )


def _access_log(flags: Flags) -> str:
    """The path of the file that Envoy writes, "" for none."""
    path = flags.access_log_file
    if not path:
        return ""
    if flags.frontend == Engine.GRPCIO:
        raise InvalidArgument("--access_log_file: it is Envoy that writes it: expected --frontend=envoy, got grpcio")
    try:
        with open(path, "ab"):
            return os.path.abspath(path)
    except OSError as error:
        raise InvalidArgument(f"--access_log_file: cannot write '{path}': {error.strerror}") from error


def channel_arguments(text: str) -> dict[str, str]:
    """`k=v,k=v` by key; what follows a second "=" is dropped, as TF Serving drops it, and of a repeated key the last
    counts. Raises InvalidArgument for a piece without "=", on which TF Serving crashes.
    """
    arguments = {}
    for piece in text.split(",") if text else ():
        key, equals, value = piece.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"--grpc_channel_arguments: expected key=value, got {piece!r} in {text!r}")
        arguments[key] = value.partition("=")[0]
    return arguments


def _tls(path: str, flag: str) -> Tls | None:
    if not path:
        return None
    config: Any = text_proto.read(path, config_protos.SSLConfig(), flag)
    for name in ("server_key", "server_cert"):
        if not getattr(config, name):
            raise InvalidArgument(f"--{flag}: '{path}': {name}: expected PEM text, got nothing")
    if config.client_verify and not config.custom_ca:
        raise InvalidArgument(f"--{flag}: '{path}': client_verify needs custom_ca, whose clients are then let in")
    return Tls(config.server_key, config.server_cert, config.custom_ca, config.client_verify)


def _metrics_path(path: str) -> str:
    """Where the metrics are served, "" for nowhere."""
    if not path:
        return ""
    config: Any = text_proto.read(path, config_protos.MonitoringConfig(), "monitoring_config_file").prometheus_config
    if not config.enable:
        return ""
    if config.path and not config.path.startswith("/"):
        raise InvalidArgument(
            f"--monitoring_config_file: '{path}': path: expected one that begins with '/', got {config.path!r}"
        )
    return config.path or DEFAULT_METRICS_PATH
