"""Flags and files about TensorFlow: what goes over what, what is refused, and what of a platform file is not used."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor import session_config
from modelpool.supervisor.command_line import parse
from modelpool.supervisor.config_protos import ConfigProto
from modelpool.supervisor.session_config import Platform
from modelpool.supervisor.wire.status import Code, PoolError
from modelpool.supervisor.wire.worker_spec import Batching


def platform(*flags: str) -> Platform:
    return session_config.from_flags(parse(["--model_base_path=/m", *flags]))


def config(*flags: str) -> Any:
    return ConfigProto.FromString(platform(*flags).session_config)


def refused(*flags: str) -> tuple[Code, str]:
    with pytest.raises(PoolError) as error:
        platform(*flags)
    return error.value.status.code, error.value.message


def platform_file(body: str, kind: str = "SavedModelBundleSourceAdapterConfig", key: str = "tensorflow") -> str:
    inner = f"legacy_config {{ {body} }}" if kind == "SavedModelBundleSourceAdapterConfig" else body
    packed = f"[type.googleapis.com/tensorflow.serving.{kind}] {{ {inner} }}"
    return f'platform_configs {{ key: "{key}" value {{ source_adapter_config {{ {packed} }} }} }}'


def test_without_flags() -> None:
    assert platform() == Platform(
        session_config=b"",
        tags=("serve",),
        warmup=True,
        warmup_iterations=1,
        xla=False,
        prefer_tflite=False,
        tflite_interpreters=1,
    )


@pytest.mark.parametrize(
    ("session", "intra", "inter", "threads"),
    [
        (0, 0, 0, (0, 0)),
        (3, 0, 0, (3, 3)),
        (0, 2, 0, (2, 0)),
        (0, 0, 4, (0, 4)),
        (0, 2, 4, (2, 4)),
        (3, 2, 0, (2, 0)),
        (3, 0, 4, (0, 4)),
    ],
)
def test_parallelism(session: int, intra: int, inter: int, threads: tuple[int, int]) -> None:
    got = config(
        f"--tensorflow_session_parallelism={session}",
        f"--tensorflow_intra_op_parallelism={intra}",
        f"--tensorflow_inter_op_parallelism={inter}",
    )
    assert (got.intra_op_parallelism_threads, got.inter_op_parallelism_threads) == threads


def test_all_three_parallelisms() -> None:
    names = ("session_parallelism", "intra_op_parallelism", "inter_op_parallelism")
    assert refused(*(f"--tensorflow_{name}=1" for name in names)) == (
        Code.INVALID_ARGUMENT,
        "Either configure server_options.tensorflow_session_parallelism or "
        "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
        "separately. You cannot configure all.",
    )


def test_flags_go_over_the_file(write: Callable[[str], str]) -> None:
    path = write(
        "intra_op_parallelism_threads: 7 inter_op_parallelism_threads: 8 allow_soft_placement: true\n"
        "gpu_options { per_process_gpu_memory_fraction: 0.25 visible_device_list: '1' }"
    )
    file = f"--tensorflow_session_config_file={path}"
    got = config(file)
    assert (got.intra_op_parallelism_threads, got.inter_op_parallelism_threads) == (7, 8)
    assert got.gpu_options.per_process_gpu_memory_fraction == 0.25
    got = config(file, "--tensorflow_intra_op_parallelism=1", "--per_process_gpu_memory_fraction=0.5")
    assert (got.intra_op_parallelism_threads, got.inter_op_parallelism_threads) == (1, 8)
    assert got.gpu_options.per_process_gpu_memory_fraction == 0.5
    assert (got.gpu_options.visible_device_list, got.allow_soft_placement) == ("1", True)


def test_mixed_precision() -> None:
    rewrites = config("--mixed_precision=bfloat16").graph_options.rewrite_options
    assert [field.name for field, _ in rewrites.ListFields()] == ["auto_mixed_precision_onednn_bfloat16"]
    assert rewrites.auto_mixed_precision_onednn_bfloat16 == 1  # RewriterConfig.ON


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_xla(device: str) -> None:
    assert platform(f"--xla_{device}_compilation_enabled").xla


def test_other_flags() -> None:
    got = platform(
        "--saved_model_tags=serve,gpu",
        "--enable_model_warmup=false",
        "--num_request_iterations_for_warmup=3",
        "--prefer_tflite_model",
        "--num_tflite_interpreters_per_pool=2",
    )
    assert got == Platform(b"", ("serve", "gpu"), False, 3, False, True, 2)


@pytest.mark.parametrize("kind", ["SavedModelBundleSourceAdapterConfig", "SessionBundleConfig"])
def test_a_platform_file_replaces_the_flags(
    write: Callable[[str], str], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    body = """
        session_config { gpu_options { allow_growth: true } } saved_model_tags: ["serve", "gpu"]
        enable_model_warmup: true model_warmup_options { num_request_iterations { value: 4 } }
        prefer_tflite_model: true num_tflite_interpreters_per_pool: 3
    """
    file = f"--platform_config_file={write(platform_file(body, kind))}"
    got = platform(file, "--saved_model_tags=x", "--enable_model_warmup=false", "--per_process_gpu_memory_fraction=1")
    session = ConfigProto.FromString(got.session_config)
    assert session.gpu_options.allow_growth
    assert session.gpu_options.per_process_gpu_memory_fraction == 0
    assert (got.tags, got.warmup, got.warmup_iterations) == (("serve", "gpu"), True, 4)
    assert (got.prefer_tflite, got.tflite_interpreters, got.xla) == (True, 3, False)
    assert not caplog.records


def test_defaults_of_a_platform_file_are_its_own(write: Callable[[str], str]) -> None:
    got = platform(f"--platform_config_file={write(platform_file(''))}", "--xla_gpu_compilation_enabled")
    assert got == Platform(b"", ("serve",), False, 1, True, False, 1)


def test_what_is_not_used_of_a_platform_file_is_logged(
    write: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    body = "session_run_load_threadpool_index { value: 0 }"
    platform(f"--platform_config_file={write(platform_file(body))}")
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "field=session_run_load_threadpool_index" in said


def test_batching() -> None:
    assert platform().batching is None
    assert platform("--enable_batching").batching == Batching(thread_pool_name="model_server_batch_threads")
    assert not platform("--enable_per_model_batching_parameters").per_model_batching, "only with --enable_batching"
    assert platform("--enable_batching", "--enable_per_model_batching_parameters").per_model_batching
    assert refused("--batching_parameters_file=/f") == (
        Code.INVALID_ARGUMENT,
        "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
    )


def test_batching_parameters(write: Callable[[str], str]) -> None:
    path = write("max_batch_size { value: 8 }")
    assert platform("--enable_batching", f"--batching_parameters_file={path}").batching == Batching(max_batch_size=8)
    path = write("max_batch_size { value: 8 } allowed_batch_sizes: 4")
    assert refused("--enable_batching", f"--batching_parameters_file={path}") == (
        Code.INVALID_ARGUMENT,
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
    )
    path = write(platform_file("batching_parameters { max_batch_size { value: 2 } }"))
    assert platform(f"--platform_config_file={path}").batching == Batching(max_batch_size=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected an entry of platform_configs for 'tensorflow'"),
        (platform_file("", key="other"), "expected an entry of platform_configs for 'tensorflow'"),
        (platform_file("", kind="MonitoringConfig"), "source_adapter_config: expected a tensorflow.serving.SavedModel"),
        (platform_file('session_target: "local"'), "session_target: expected '', sessions are local"),
    ],
)
def test_a_platform_file_that_is_refused(write: Callable[[str], str], text: str, message: str) -> None:
    path = write(text)
    code, got = refused(f"--platform_config_file={path}")
    assert (code, got[: len(message) + len(path) + 28]) == (
        Code.INVALID_ARGUMENT,
        f"--platform_config_file: '{path}': {message}",
    )


@pytest.mark.parametrize(
    ("flag", "name"),
    [("platform_config_file", "serving.PlatformConfigMap"), ("tensorflow_session_config_file", "ConfigProto")],
)
def test_syntax_errors_say_where(write: Callable[[str], str], flag: str, name: str) -> None:
    path = write("\n  nonesuch: 1")
    code, text = refused(f"--{flag}={path}")
    assert code is Code.INVALID_ARGUMENT
    assert text.startswith(f"Invalid protobuf file: '{path}'. Error parsing text-format tensorflow.{name}: 2:3: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "nonesuch"
    flag = "--tensorflow_session_config_file"
    assert refused(f"{flag}={path}") == (Code.NOT_FOUND, f"{flag}: {path}; No such file or directory")
    path.write_bytes(b"\xff")
    code, text = refused(f"{flag}={path}")
    assert (code, text.startswith(f"{flag}: cannot read '{path}': ")) == (Code.INVALID_ARGUMENT, True)
