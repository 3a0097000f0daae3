"""TensorFlow in the workers as flags and files want it: XLA, session options, custom operations, Python modules."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e import custom_op_models
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor, values

WITHIN_S = 30.0
X = {"x": tensor([1.0, 2.0])}


def ys(pool: Pool, model: str) -> Any:
    return values(pool.predict(predict_request(model, X)).outputs["y"])


def load_error(pool: Pool, model: str) -> tuple[int, str]:
    """The code and the text with which the model's one version has ended."""
    eventually(lambda: set(pool.versions(model).values()) == {"END"}, WITHIN_S, f"the load of {model} has failed")
    (version,) = pool.model_status(model).model_version_status
    return version.status.error_code, version.status.error_message


def words(pool: Pool, model: str) -> Any:
    reply = pool.post(f"/v1/models/{model}:predict", {"inputs": ["to be or", "not"]})
    assert reply.status == 200, reply
    return reply.json["outputs"]


@pytest.fixture(scope="module")
def extended(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Models with what they need, and without; no flag about TensorFlow but one session option."""
    directory = tmp_path_factory.mktemp("extended")
    broken = directory / "broken.so"
    broken.write_bytes(b"this is no library")
    library = models / custom_op_models.LIBRARY
    session = directory / "session.pbtxt"
    session.write_text("session_inter_op_thread_pool { num_threads: 2 }\n", encoding="utf-8")
    needs = {
        "words": {"python_modules": ["tensorflow_text"]},
        "no_module": {"python_modules": ["no_such_module_of_anyone"]},
        "bad_module": {"python_modules": ["modelpool.worker.main", "antigravity_of_nobody.inner"]},
        # Of the standard library, for another system: one raises as it is imported, one imports what is not there.
        "raising_module": {"python_modules": ["asyncio.windows_events"]},
        "lacking_module": {"python_modules": ["multiprocessing.popen_spawn_win32"]},
        "no_library": {"op_libraries": [str(directory / "nonesuch.so")]},
        "bad_library": {"op_libraries": [str(broken)]},
        "plus_seven": {"op_libraries": [str(library)]},
    }
    pool_file = directory / "pool.toml"
    pool_file.write_text(
        "".join(
            f"[models.{name}]\n{key} = {json.dumps(value)}\n"
            for name, keys in needs.items()
            for key, value in keys.items()
        ),
        encoding="utf-8",
    )
    places = {name: models / "half_plus_two" for name in needs} | {
        "words": models / "words",
        "words_alone": models / "words",
        "compiled": models / "compiled",
        "half_plus_two": models / "half_plus_two",
    }
    if library.exists():
        places |= {"plus_seven": models / "plus_seven", "plus_seven_alone": models / "plus_seven"}
    flags = (f"--pool_config_file={pool_file}", f"--tensorflow_session_config_file={session}")
    with running_pool(model_config(places), *flags, "--max_num_load_retries=0", "--enable_model_warmup=false") as pool:
        yield pool


def test_a_python_module_brings_its_operations(extended: Pool) -> None:
    assert words(extended, "words") == ["to", "be", "or", "not"]


def test_without_the_module_the_load_fails_and_nobody_else_does(extended: Pool) -> None:
    code, text = load_error(extended, "words_alone")
    assert code != 0
    assert "WhitespaceTokenizeWithOffsetsV2" in text
    assert ys(extended, "half_plus_two") == [2.5, 3.0]


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        ("no_module", grpc.StatusCode.NOT_FOUND, "python_modules: no module named 'no_such_module_of_anyone'"),
        ("bad_module", grpc.StatusCode.NOT_FOUND, "python_modules: no module named 'antigravity_of_nobody.inner'"),
        (
            "raising_module",
            grpc.StatusCode.FAILED_PRECONDITION,
            "python_modules: cannot import 'asyncio.windows_events': ImportError: win32 only",
        ),
        (
            "lacking_module",
            grpc.StatusCode.FAILED_PRECONDITION,
            "python_modules: cannot import 'multiprocessing.popen_spawn_win32': "
            "ModuleNotFoundError: No module named 'msvcrt'",
        ),
        ("no_library", grpc.StatusCode.NOT_FOUND, "op_libraries: no such file: "),
        ("bad_library", grpc.StatusCode.FAILED_PRECONDITION, "op_libraries: cannot load "),
    ],
)
def test_what_cannot_be_loaded_is_named(extended: Pool, model: str, code: grpc.StatusCode, text: str) -> None:
    got, message = load_error(extended, model)
    assert (got, message[: len(text)]) == (code.value[0], text)
    assert ys(extended, "half_plus_two") == [2.5, 3.0]


def test_a_custom_operation(extended: Pool, models: Path) -> None:
    if not (models / custom_op_models.LIBRARY).exists():
        pytest.skip("there is no C++ compiler")
    assert ys(extended, "plus_seven") == [8.0, 9.0]
    code, text = load_error(extended, "plus_seven_alone")
    assert code != 0
    assert "ModelpoolPlusSeven" in text


def test_a_model_that_wants_xla_is_refused_without_the_flag(extended: Pool) -> None:
    code, text = refusal(lambda: ys(extended, "compiled"))
    assert code is grpc.StatusCode.INTERNAL
    assert text.startswith("XLA compilation disabled")


_SESSIONS = """
import json
import sys
from tensorflow.core.protobuf import config_pb2
from modelpool.worker import loader
from google.protobuf import text_format

def shown(text):
    config = loader.session_config(text_format.Parse(text, config_pb2.ConfigProto()).SerializeToString())
    return [config.allow_soft_placement, config.gpu_options.allow_growth, loader.wants_pool(config)]

def limited():
    given = text_format.Parse(
        "gpu_options { per_process_gpu_memory_fraction: 0.5 visible_device_list: '1' }", config_pb2.ConfigProto()
    )
    options = loader.session_config(given.SerializeToString(), 3 << 30).gpu_options
    limits = [list(device.memory_limit_mb) for device in options.experimental.virtual_devices]
    return [options.per_process_gpu_memory_fraction, options.allow_growth, limits, options.visible_device_list]

print(json.dumps([[shown(text) for text in json.loads(sys.argv[1])], limited()]))
"""


def test_our_defaults_of_a_session_give_way_to_the_operators() -> None:
    """[soft placement, GPU memory as needed, operations in the session's own pool instead of the caller's thread]."""
    wanted = {
        "": [True, True, False],
        "intra_op_parallelism_threads: 4 inter_op_parallelism_threads: 1": [True, True, False],
        "inter_op_parallelism_threads: 2": [True, True, True],
        "session_inter_op_thread_pool { num_threads: 1 }": [True, True, True],
        "gpu_options { per_process_gpu_memory_fraction: 0.5 }": [True, False, False],
        "gpu_options { per_process_gpu_memory_fraction: 0.5 allow_growth: true }": [True, True, False],
    }
    command = [sys.executable, "-c", _SESSIONS, json.dumps(list(wanted))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown, limited = json.loads(done.stdout)
    assert dict(zip(wanted, shown, strict=True)) == wanted
    # TensorFlow takes a share or a limit, not both; and a number of a device means another one here.
    assert limited == [0, True, [[3072]], ""]


def test_xla_by_flag(start_pool: StartPool, models: Path) -> None:
    names = ("compiled", "half_plus_two")
    flags = ("--xla_cpu_compilation_enabled", "--mixed_precision=bfloat16", "--tensorflow_inter_op_parallelism=2")
    pool = start_pool(model_config({name: models / name for name in names}), *flags)
    pool.wait_available(*names)
    assert ys(pool, "compiled") == [3.0, 5.0]
    assert ys(pool, "half_plus_two") == [2.5, 3.0]


def test_platform_config_file(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    """Its tags count and the flag's do not; it has model warmup off unless it says otherwise."""
    path = tmp_path / "platform.pbtxt"
    path.write_text(
        """
        platform_configs { key: "tensorflow" value { source_adapter_config {
          [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
            legacy_config {
              session_config { intra_op_parallelism_threads: 1 }
              saved_model_tags: "serve"
              session_run_load_threadpool_index { value: 0 }
            }
          } } } }
        """,
        encoding="utf-8",
    )
    config = model_config({"bad_warmup": models / "bad_warmup"})
    pool = start_pool(config, f"--platform_config_file={path}", "--saved_model_tags=nonesuch")
    pool.wait_available("bad_warmup")
    assert ys(pool, "bad_warmup") == [2.5, 3.0]
    assert "field without effect field=session_run_load_threadpool_index" in pool.log
