"""The configuration files while the server runs: read again and again, refused with a reason, and what they change."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import POLL_S, eventually
from tests.e2e.pool import MODELPOOL, Pool, StartPool, model_config, put_version, refusal, running_pool

WITHIN_S = 20.0
RECORD_WITHIN_S = 60.0
SETTLE = "[defaults]\nsettle_s = 0\n"


@dataclass(frozen=True, slots=True)
class Files:
    """A pool whose both configuration files are polled each second."""

    pool: Pool
    pool_file: Path
    numbered: Path

    def write_pool_file(self, text: str) -> None:
        unfinished = self.pool_file.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.pool_file)

    def write_policy(self, policy: str) -> None:
        self.pool.write_config(model_config({"numbered": self.numbered}, {"numbered": policy}))

    def errors(self) -> dict[str, dict[str, str]]:
        """What the status says is wrong, by flag."""
        errors: dict[str, dict[str, str]] = self.pool.status()["supervisor"]["configuration_errors"]
        return errors


@pytest.fixture(scope="module")
def polled(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    pool_file = tmp_path_factory.mktemp("configuration") / "pool.toml"
    pool_file.write_text(SETTLE)
    flags = ("--model_config_file_poll_wait_seconds=1", f"--pool_config_file={pool_file}")
    with running_pool(model_config({"numbered": models / "numbered"}), *flags) as pool:
        pool.wait_available("numbered")
        yield Files(pool, pool_file, models / "numbered")


@pytest.fixture
def files(polled: Files) -> Files:
    """Good files, which are in force: version 3 of `numbered` is served."""
    polled.write_pool_file(SETTLE)
    polled.write_policy("latest {}")
    eventually(lambda: polled.errors() == {} and served(polled.pool) == {3}, WITHIN_S)
    return polled


def served(pool: Pool) -> set[int]:
    """The versions of `numbered` that are not at their end."""
    return {version for version, state in pool.versions("numbered").items() if state != "END"}


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (
            'model_config_list {\n  config {\n    name: "a"\n    base_pth: "/x"\n  }\n}\n',
            "Invalid protobuf file: '{file}'. Error parsing text-format tensorflow.serving.ModelServerConfig: "
            '4:5: Message type "tensorflow.serving.ModelConfig" has no field named "base_pth".',
        ),
        (model_config({"numbered": "relative/path"}), "Expected model numbered to have an absolute path or URI; "),
        ("custom_model_config {}", "ModelServer does not yet support custom model config."),
        (
            "custom_model_config { [type.googleapis.com/tensorflow.serving.ModelServerConfig] {" * 3000 + "}}" * 3000,
            "Invalid protobuf file: '{file}'. Error parsing text-format tensorflow.serving.ModelServerConfig: "
            "messages are nested too deeply",
        ),
    ],
    ids=["syntax", "relative", "custom", "deep"],
)
def test_a_bad_model_config_file_keeps_the_last_good_one(files: Files, bad: str, text: str) -> None:
    pool = files.pool
    pid = pool.worker("numbered", 3)["pid"]
    pool.write_config(bad)
    error = eventually(files.errors, WITHIN_S)["model_config_file"]
    message = text.replace("{file}", str(pool.config_file))
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["message"].startswith(message)
    told = [line for line in pool.log.splitlines() if "configuration refused, the last good one stays" in line]
    assert message[-30:] in told[-1]
    assert "flag=model_config_file" in told[-1]
    assert pool.number_by_grpc("numbered") == 3
    assert pool.worker("numbered", 3)["pid"] == pid
    files.write_policy("latest { num_versions: 2 }")
    eventually(lambda: files.errors() == {}, WITHIN_S, "the error is cleared")
    eventually(lambda: served(pool) == {2, 3}, WITHIN_S, "the next good file is in force")


def test_a_label_of_the_file_that_is_refused(files: Files) -> None:
    pool = files.pool
    pool.write_config(model_config({"numbered": files.numbered}, None, {"numbered": {"stable": 1}}))
    text = "Request to assign label to version 1 of model numbered, which is not currently available for inference"
    refused = {"code": "FAILED_PRECONDITION", "message": text}
    eventually(lambda: files.errors() == {"model_config_file": refused}, WITHIN_S)
    files.write_policy("latest {}")
    eventually(lambda: files.errors() == {}, WITHIN_S)
    pool.write_config(model_config({"numbered": files.numbered}, None, {"numbered": {"stable": 3}}))
    eventually(lambda: pool.model("numbered")["versions"][0]["labels"] == ["stable"], WITHIN_S)
    assert (pool.number_by_grpc("numbered", label="stable"), pool.number_by_rest("numbered", label="stable")) == (3, 3)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("[defaults]\nsettle_s = 0\nrollback = maybe\n", "{file}:3:12: Invalid value"),
        ("[models.a]\nrolback = true\n", "{file}: [models.a]: unknown key rolback: did you mean rollback?"),
    ],
    ids=["syntax", "unknown key"],
)
def test_a_bad_pool_file_keeps_the_last_good_one(files: Files, bad: str, text: str) -> None:
    files.write_pool_file(bad)
    message = text.replace("{file}", str(files.pool_file))
    refused = {"code": "INVALID_ARGUMENT", "message": message}
    eventually(lambda: files.errors() == {"pool_config_file": refused}, WITHIN_S)
    assert f"flag=pool_config_file error='INVALID_ARGUMENT: {message}'" in files.pool.log
    assert files.pool.number_by_grpc("numbered") == 3
    files.write_pool_file(SETTLE)
    eventually(lambda: files.errors() == {}, WITHIN_S, "the error is cleared")
    assert "configuration is good again flag=pool_config_file" in files.pool.log


def test_version_policies(files: Files) -> None:
    pool = files.pool
    for policy, versions in (
        ("latest { num_versions: 2 }", {2, 3}),
        ("all {}", {1, 2, 3}),
        ("specific { versions: 1 versions: 3 versions: 9 }", {1, 3}),
        ("latest {}", {3}),
    ):
        files.write_policy(policy)
        eventually(lambda wanted=versions: served(pool) == wanted, WITHIN_S, policy)  # type: ignore[misc]
        eventually(lambda wanted=versions: available(pool) == wanted, WITHIN_S, policy)  # type: ignore[misc]
        assert [pool.number_by_grpc("numbered", version) for version in sorted(versions)] == sorted(versions)
    assert "Version 9 of servable numbered, which was requested to be served as a 'specific' version" in pool.log


def available(pool: Pool) -> set[int]:
    return {version for version, state in pool.versions("numbered").items() if state == "AVAILABLE"}


def most_workers(pool: Pool, model: str, during: Callable[[], None]) -> int:
    """How many workers of the model had a process at the same time, at most, by the status."""
    counts: list[int] = []

    def look(stop: threading.Event) -> None:
        while not stop.wait(POLL_S / 4):
            versions = pool.model(model)["versions"]
            counts.append(sum(worker["pid"] is not None for each in versions for worker in each["workers"]))

    with beside(look):
        during()
    assert counts
    return max(counts)


def test_resource_preserving(files: Files) -> None:
    """Never two workers of the model: the old one is gone before the new one is started, there and back."""
    pool = files.pool

    def switch() -> None:
        for version in (2, 3, 1):
            files.write_policy(f"specific {{ versions: {version} }}")
            eventually(lambda wanted=version: available(pool) == {wanted}, WITHIN_S)  # type: ignore[misc]

    changes = pool.log.count("pool configuration changed")
    files.write_pool_file(SETTLE + '[models.numbered]\ntransition_policy = "resource_preserving"\n')
    eventually(lambda: pool.log.count("pool configuration changed") > changes, WITHIN_S)
    before = len(pool.log)
    assert most_workers(pool, "numbered", switch) == 1
    words = ("worker gone servable=numbered", "starting worker servable=numbered")
    order = [word for line in pool.log[before:].splitlines() for word in words if word in line]
    assert order == list(words) * 3
    files.write_pool_file(SETTLE)


@contextmanager
def record(pool: Pool, output: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(MODELPOOL), "warmup", "record", "numbered", f"--output={output}", "--count=3", "--seconds=3"]
    command.append(f"--runtime_dir={pool.runtime_dir}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_warmup_is_recorded(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    """Refused where it is off; with it on, live traffic becomes the warmup of the next start."""
    pool_file, base = tmp_path / "pool.toml", tmp_path / "numbered"
    base.mkdir()
    put_version(models / "numbered" / "1", base, "1")
    output = base / "1" / "assets.extra" / "tf_serving_warmup_requests"
    pool_file.write_text(SETTLE)
    flags = ("--model_config_file_poll_wait_seconds=1", f"--pool_config_file={pool_file}")
    pool = start_pool(model_config({"numbered": base}), *flags)
    with record(pool, output) as refused:
        said, told = refused.communicate(timeout=RECORD_WITHIN_S)
    assert not said
    assert told == (
        "modelpool warmup record: FAILED_PRECONDITION: recording is off for model numbered: "
        "set record_warmup = true for it in --pool_config_file\n"
    )
    assert refused.returncode == 1
    assert not output.exists()

    pool_file.write_text(SETTLE + "record_warmup = true\n")
    eventually(lambda: "pool configuration changed" in pool.log, WITHIN_S)
    with record(pool, output) as recording:

        def ended() -> bool:
            assert (pool.number_by_grpc("numbered"), pool.number_by_rest("numbered")) == (1, 1)
            return recording.poll() is not None

        eventually(ended, RECORD_WITHIN_S)
        said, _ = recording.communicate()
    assert (recording.returncode, said) == (0, f"3 requests written to {output}\n")
    assert pool.stop() == 0
    pool.start()
    pool.wait_open()
    assert "warm records=3 iterations=1" in pool.log
    assert pool.number_by_grpc("numbered") == 1


def test_an_unknown_model_is_not_recorded(files: Files, tmp_path: Path) -> None:
    command = [str(MODELPOOL), "warmup", "record", "nonesuch", f"--output={tmp_path / 'file'}"]
    files.write_pool_file(SETTLE + "record_warmup = true\n")

    def told() -> bool:
        done = subprocess.run(
            [*command, f"--runtime_dir={files.pool.runtime_dir}"], stderr=subprocess.PIPE, text=True, check=False
        )
        return done.stderr == "modelpool warmup record: NOT_FOUND: no worker serves model nonesuch\n"

    eventually(told, WITHIN_S, "once the file is in force")
    assert refusal(lambda: files.pool.number_by_grpc("nonesuch"))[0] is grpc.StatusCode.NOT_FOUND
