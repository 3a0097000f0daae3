"""The command line: forms, limits, error texts, and that `Flags` has all of TF Serving's flags and defaults."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.command_line import InertFlag, inert_flags, parse, usage
from modelpool.supervisor.command_options import UsageError
from modelpool.supervisor.flags import Flags

BASE = ["--model_base_path=/models/m"]

TF_SERVING_DEFAULTS: dict[str, Any] = {
    "port": 8500,
    "grpc_socket_path": "",
    "rest_api_port": 0,
    "rest_api_timeout_in_ms": 30000,
    "rest_api_enable_cors_support": False,
    "enable_batching": False,
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": False,
    "model_name": "default",
    "model_base_path": "",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": 0,
    "file_system_poll_wait_seconds": 1,
    "allow_version_labels_for_unavailable_models": False,
    "num_load_threads": 0,
    "num_unload_threads": 0,
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60000000,
    "flush_filesystem_caches": True,
    "tensorflow_session_parallelism": 0,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": 0,
    "tensorflow_session_config_file": "",
    "platform_config_file": "",
    "per_process_gpu_memory_fraction": 0.0,
    "saved_model_tags": "serve",
    "ssl_config_file": "",
    "use_alts_credentials": False,
    "grpc_channel_arguments": "",
    "enable_model_warmup": True,
    "num_request_iterations_for_warmup": 0,
    "monitoring_config_file": "",
    "remove_unused_fields_from_bundle_metagraph": True,
    "prefer_tflite_model": False,
    "num_tflite_interpreters_per_pool": 1,
    "enable_signature_method_name_check": False,
    "xla_cpu_compilation_enabled": False,
    "xla_gpu_compilation_enabled": False,
    "enable_profiler": True,
    "thread_pool_factory_config_file": "",
    "mixed_precision": "",
    "skip_initialize_tpu": False,
    "enable_grpc_healthcheck_service": False,
    "enable_serialization_as_tensor_content": False,
    "version": False,
    "help": False,
}
DEPEND_ON_CPUS = {"rest_api_num_threads", "grpc_max_threads", "num_tflite_pools"}
OUR_DEFAULTS: dict[str, Any] = {
    "access_log_file": "",
    "runtime_dir": "",
    "crash_dir": "",
    "log_level": "INFO",
    "max_request_bytes": 2147483647,
    "drain_timeout_s": 30.0,
    "lame_duck_s": 0.0,
    "allow_chaos": False,
    "load_timeout_s": 3600.0,
    "exit_on_startup_failure": False,
    "pool_config_file": "",
    "reload_timeout_s": 120.0,
    "rest_ssl_config_file": "",
    "enable_grpc_reflection": True,
    "frontend": "auto",
    "frontends": 1,
    "shared_memory_mb": 256,
    "shared_memory_total_mb": 0,
    "profiler_dir": "",
}
WITHOUT_EFFECT = {
    *("num_unload_threads", "flush_filesystem_caches", "remove_unused_fields_from_bundle_metagraph"),
    *("num_tflite_pools", "rest_api_num_threads", "grpc_max_threads", "skip_initialize_tpu"),
    "thread_pool_factory_config_file",
}


def test_all_flags_with_their_defaults() -> None:
    flags = Flags()
    assert {each.name for each in fields(Flags)} == {*TF_SERVING_DEFAULTS, *DEPEND_ON_CPUS, *OUR_DEFAULTS}
    for name, default in {**TF_SERVING_DEFAULTS, **OUR_DEFAULTS}.items():
        assert getattr(flags, name) == default, name
        assert type(getattr(flags, name)) is type(default), name
    assert flags.rest_api_num_threads == flags.grpc_max_threads == 4 * flags.num_tflite_pools


def test_forms() -> None:
    flags = parse(["--model_base_path", "/m", "--port=1", "--enable_batching", "--enable_model_warmup=FALSE"])
    assert (flags.model_base_path, flags.port, flags.enable_batching, flags.enable_model_warmup) == (
        "/m",
        1,
        True,
        False,
    )


def test_value_may_hold_an_equals_sign_and_may_be_negative_or_empty() -> None:
    flags = parse(
        [*BASE, "--grpc_channel_arguments=a=1,b=2", "--file_system_poll_wait_seconds", "-1", "--saved_model_tags="]
    )
    assert flags.grpc_channel_arguments == "a=1,b=2"
    assert flags.file_system_poll_wait_seconds == -1
    assert flags.saved_model_tags == ""


def test_last_of_a_repeated_flag_counts() -> None:
    image = ["--port=8500", "--rest_api_port=8501", "--model_name=model", "--model_base_path=/models/model"]
    flags = parse([*image, "--model_name", "mine", "--port=9000", "--enable_batching", "--enable_batching=false"])
    assert (flags.model_name, flags.port, flags.rest_api_port, flags.enable_batching) == ("mine", 9000, 8501, False)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--prot=1"], "unknown flag --prot: expected a flag of this server; did you mean --port?"),
        (
            ["--model-name=m"],
            "unknown flag --model-name: expected a flag of this server; did you mean --model_name?",
        ),
        (["--zzz"], "unknown flag --zzz: expected a flag of this server; --help lists them"),
        (["-port=1"], "unknown flag -port: expected flags that begin with '--'; did you mean --port?"),
        (["--"], "unknown flag --: expected a flag of this server; --help lists them"),
        (["--port"], "--port: missing value; expected an integer from 0 to 65535"),
        (
            ["--model_name", "--port=1"],
            "--model_name: missing value; expected a string, got the flag '--port=1'; "
            "a value that begins so is written --model_name=--port=1",
        ),
        (["--port=65536"], "--port: expected an integer from 0 to 65535, got '65536'"),
        (["--port=-1"], "--port: expected an integer from 0 to 65535, got '-1'"),
        (["--port=8_500"], "--port: expected an integer from 0 to 65535, got '8_500'"),
        (["--port="], "--port: expected an integer from 0 to 65535, got ''"),
        (["--port", "1.0"], "--port: expected an integer from 0 to 65535, got '1.0'"),
        (
            ["--max_request_bytes=0"],
            "--max_request_bytes: expected an integer from 1 to 2147483647, got '0'",
        ),
        (
            ["--file_system_poll_wait_seconds=2147483648"],
            "--file_system_poll_wait_seconds: expected an integer from -2147483648 to 2147483647, got '2147483648'",
        ),
        (["--drain_timeout_s=nan"], "--drain_timeout_s: expected a number from 0 to 2147483647, got 'nan'"),
        (["--drain_timeout_s=-1"], "--drain_timeout_s: expected a number from 0 to 2147483647, got '-1'"),
        (["--drain_timeout_s=1e999"], "--drain_timeout_s: expected a number from 0 to 2147483647, got '1e999'"),
        (["--enable_batching=1"], "--enable_batching: expected true or false, got '1'"),
        (["--log_level=info"], "--log_level: expected one of DEBUG, INFO, WARNING, ERROR, got 'info'"),
        (["--mixed_precision=fp8"], "--mixed_precision: expected one of '', bfloat16, got 'fp8'"),
        (["models"], "unexpected argument 'models': expected only flags, written --flag=value"),
        (["--port=1", "2"], "unexpected argument '2': expected only flags, written --flag=value"),
        (
            ["--enable_batching", "false"],
            "unexpected argument 'false': a boolean's value is written with '=': --enable_batching=false",
        ),
        (
            ["--port=1"],
            "no model to serve: expected --model_base_path=<folder of one model> or "
            "--model_config_file=<ModelServerConfig in text format>",
        ),
    ],
)
def test_errors(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(argv)
    assert error.value.message == text


def test_an_earlier_bad_value_is_an_error_too() -> None:
    with pytest.raises(UsageError, match=r"^--port: "):
        parse([*BASE, "--port=x", "--port=1"])


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["--model_config_file=/c"], BASE])
def test_what_needs_no_more(argv: list[str]) -> None:
    parse(argv)


def test_inert_flags_are_named_once_in_order_with_the_reason() -> None:
    argv = [*BASE, "--skip_initialize_tpu=false", "--flush_filesystem_caches", "--skip_initialize_tpu", "--port=1"]
    assert inert_flags(argv) == (
        InertFlag("skip_initialize_tpu", "TPUs are never initialized: they are not supported"),
        InertFlag(
            "flush_filesystem_caches",
            "each model is read by its own worker process; there is no shared cache to flush",
        ),
    )


def test_which_flags_are_without_effect() -> None:
    argv = [f"--{name}={_text(default)}" for name, default in _defaults().items()]
    inert = {each.name: each.reason for each in inert_flags(argv)}
    assert set(inert) == WITHOUT_EFFECT


def test_usage_lists_every_flag_with_its_default() -> None:
    text = usage()
    for name, default in _defaults().items():
        assert f"\n  --{name}={_text(default)}\n" in text, name
    assert max(map(len, text.splitlines())) <= 105


def _defaults() -> dict[str, Any]:
    return {each.name: getattr(Flags(), each.name) for each in fields(Flags)}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refusal(argv: list[str]) -> str:
    try:
        parse(argv)
    except UsageError as error:
        return error.message
    return ""


texts = st.text(st.characters(exclude_categories=["Cs"]))
chosen = st.fixed_dictionaries(
    {"model_base_path": texts.filter(bool)},
    optional={
        "port": st.integers(0, 65535),
        "load_retry_interval_micros": st.integers(-(2**63), 2**63 - 1),
        "rest_api_timeout_in_ms": st.integers(-(2**31), 2**31 - 1),
        "drain_timeout_s": st.floats(0, 2**31 - 1),
        "lame_duck_s": st.floats(0, 2**31 - 1),
        "enable_batching": st.booleans(),
        "model_name": texts,
        "log_level": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR"]),
    },
)


@settings(max_examples=40)
@given(chosen, st.data())
def test_round_trip(values: dict[str, Any], data: st.DataObject) -> None:
    argv: list[str] = []
    for name, value in data.draw(st.permutations(list(values.items()))):
        apart = not isinstance(value, bool) and not str(value).startswith("--") and data.draw(st.booleans())
        argv += [f"--{name}", _text(value)] if apart else [f"--{name}={_text(value)}"]
    assert parse(argv) == Flags(**values)


@settings(max_examples=40)
@given(st.lists(texts.filter(lambda text: not text.startswith("--"))))
def test_what_is_no_flag_is_refused_and_never_crashes(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(argv)


@given(st.sampled_from(sorted({*TF_SERVING_DEFAULTS, *OUR_DEFAULTS})), texts)
def test_a_value_is_taken_or_refused_with_the_name_of_its_flag(name: str, text: str) -> None:
    text = _refusal([*BASE, f"--{name}={text}"])
    assert text == "" or text.startswith((f"--{name}: expected ", "no model to serve: "))
