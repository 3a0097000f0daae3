"""Flags and files about the ports: TLS, metrics, gRPC's arguments, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelpool.supervisor import endpoint_config
from modelpool.supervisor.command_line import parse
from modelpool.supervisor.endpoint_config import EndpointConfig, channel_arguments
from modelpool.supervisor.wire.frontend_spec import Tls
from modelpool.supervisor.wire.status import Code, InvalidArgument, PoolError

PAIR = 'server_key: "the\\nkey" server_cert: "cert"'


def endpoints(*flags: str) -> EndpointConfig:
    return endpoint_config.from_flags(parse(["--model_base_path=/m", *flags]))


def refused(*flags: str) -> tuple[Code, str]:
    with pytest.raises(PoolError) as error:
        endpoints(*flags)
    return error.value.status.code, error.value.message


def test_without_flags() -> None:
    assert endpoints() == EndpointConfig(
        grpc_tls=None,
        rest_tls=None,
        grpc_arguments={},
        metrics_path="",
        rest_cors=False,
        health=False,
        reflection=True,
        profiler=True,
        access_log="",
    )


def test_switches() -> None:
    got = endpoints(
        "--rest_api_enable_cors_support",
        "--enable_grpc_healthcheck_service",
        "--enable_grpc_reflection=false",
        "--enable_profiler=false",
    )
    assert (got.rest_cors, got.health, got.reflection, got.profiler) == (True, True, False, False)


def test_tls_for_each_protocol(write: Callable[[str], str]) -> None:
    path = write(f'{PAIR} custom_ca: "ca" client_verify: true')
    tls = Tls("the\nkey", "cert", "ca", True)
    got = endpoints(f"--ssl_config_file={path}")
    assert (got.grpc_tls, got.rest_tls) == (tls, None)
    got = endpoints(f"--rest_ssl_config_file={path}")
    assert (got.grpc_tls, got.rest_tls) == (None, tls)
    assert endpoints(f"--ssl_config_file={write(PAIR)}").grpc_tls == Tls("the\nkey", "cert", "", False)


@pytest.mark.parametrize("flag", ["ssl_config_file", "rest_ssl_config_file"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server_cert: "x"', "server_key: expected PEM text, got nothing"),
        ('server_key: "x"', "server_cert: expected PEM text, got nothing"),
        (f"{PAIR} client_verify: true", "client_verify needs custom_ca, whose clients are then let in"),
    ],
)
def test_tls_that_is_refused(write: Callable[[str], str], flag: str, text: str, message: str) -> None:
    path = write(text)
    assert refused(f"--{flag}={path}") == (Code.INVALID_ARGUMENT, f"--{flag}: '{path}': {message}")


def test_alts(write: Callable[[str], str]) -> None:
    code, text = refused("--use_alts_credentials", f"--ssl_config_file={write(PAIR)}")
    assert (code, text) == (
        Code.INVALID_ARGUMENT,
        "Only one of --use_alts_credentials and --ssl_config_file can be set.",
    )
    code, text = refused("--use_alts_credentials")
    assert (code, text[:24]) == (Code.UNIMPLEMENTED, "--use_alts_credentials: ")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("prometheus_config {}", ""),
        ('prometheus_config { enable: false path: "/m" }', ""),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
    ],
)
def test_metrics_path(write: Callable[[str], str], text: str, path: str) -> None:
    assert endpoints(f"--monitoring_config_file={write(text)}").metrics_path == path


def test_metrics_path_that_is_refused(write: Callable[[str], str]) -> None:
    path = write('prometheus_config { enable: true path: "metrics" }')
    assert refused(f"--monitoring_config_file={path}") == (
        Code.INVALID_ARGUMENT,
        f"--monitoring_config_file: '{path}': path: expected one that begins with '/', got 'metrics'",
    )


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("ssl_config_file", "SSLConfig"),
        ("rest_ssl_config_file", "SSLConfig"),
        ("monitoring_config_file", "MonitoringConfig"),
    ],
)
def test_syntax_errors_say_where(write: Callable[[str], str], flag: str, name: str) -> None:
    path = write("x {\n")
    code, text = refused(f"--{flag}={path}")
    assert code is Code.INVALID_ARGUMENT
    assert text.startswith(
        f"Invalid protobuf file: '{path}'. Error parsing text-format tensorflow.serving.{name}: 1:1: "
    )


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ("grpc.max_connection_age_ms=2000", {"grpc.max_connection_age_ms": "2000"}),
        ("a=1,b=x", {"a": "1", "b": "x"}),
        ("a=1,a=2", {"a": "2"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b"}),
    ],
)
def test_channel_arguments(text: str, arguments: dict[str, str]) -> None:
    assert channel_arguments(text) == arguments


@pytest.mark.parametrize(("text", "piece"), [("a", "a"), ("a=1,", ""), ("a=1,,b=2", ""), ("=1", "=1"), (",", "")])
def test_channel_arguments_that_are_refused(text: str, piece: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        channel_arguments(text)
    assert error.value.message == f"--grpc_channel_arguments: expected key=value, got {piece!r} in {text!r}"


def test_access_log(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    assert endpoints("--frontend=envoy", f"--access_log_file={path}").access_log == str(path)
    assert path.read_bytes() == b""
    assert refused("--frontend=grpcio", f"--access_log_file={path}") == (
        Code.INVALID_ARGUMENT,
        "--access_log_file: it is Envoy that writes it: expected --frontend=envoy, got grpcio",
    )
    assert refused("--frontend=envoy", f"--access_log_file={tmp_path}/no/log") == (
        Code.INVALID_ARGUMENT,
        f"--access_log_file: cannot write '{tmp_path}/no/log': No such file or directory",
    )
