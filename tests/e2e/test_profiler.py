"""Profiles of a running worker: over gRPC as TensorBoard asks for them, and by the command line."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from modelpool.frontend.profiler_protos import ProfileRequest, ProfileResponse, TerminateRequest
from tests.e2e.pool import MODELPOOL, Pool, StartPool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor

HALF, SUM = "half_plus_two", "sum"
# Of so many values half_plus_two's x * a + b takes long enough to be in each trace: TensorFlow leaves out ops that have
# turned out to be cheap, as those of one value are on a quick machine.
VALUES = [1.0] * 100_000


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(scope="module")
def pool(models: Path, profiles: Path) -> Iterator[Pool]:
    config = model_config({name: models / name for name in (HALF, SUM)})
    with running_pool(config, f"--profiler_dir={profiles}") as pool:
        pool.wait_available(HALF, SUM)
        yield pool


def call(pool: Pool, method: str, request: Any, model: str | None = None) -> bytes:
    send = pool.channel.unary_unary(f"/tensorflow.ProfilerService/{method}")
    metadata = () if model is None else (("modelpool-model", model),)
    reply: bytes = send(request.SerializeToString(), timeout=60, metadata=metadata)
    return reply


def profile_request(root: Path | str, duration_ms: int = 500, session: str = "s", host: str = "h") -> Any:
    request = ProfileRequest(repository_root=str(root), session_id=session, host_name=host)
    request.opts.duration_ms = duration_ms
    return request


def profile(pool: Pool, request: Any, model: str | None = HALF) -> Any:
    return ProfileResponse.FromString(call(pool, "Profile", request, model))


@contextmanager
def traffic(pool: Pool) -> Iterator[list[float]]:
    """Asks half_plus_two all the time; what each answer took, in seconds."""
    over = threading.Event()
    took: list[float] = []

    def run() -> None:
        while not over.is_set():
            began_s = time.monotonic()
            pool.predict(predict_request(HALF, {"x": tensor(VALUES)}))
            took.append(time.monotonic() - began_s)

    with ThreadPoolExecutor(1) as executor:
        asking: Future[None] = executor.submit(run)
        try:
            yield took
        finally:
            over.set()
        asking.result()


def names(file: Path) -> set[str]:
    """Of all events of a trace."""
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    return {
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    }


def test_the_ops_of_the_model_are_in_the_trace_and_requests_go_on(pool: Pool, profiles: Path) -> None:
    with traffic(pool) as took:
        reply = profile(pool, profile_request(profiles / "run", 1000, "2026_11_23", "localhost:8500"))
        count = len(took)
    assert not reply.empty_trace
    folder = profiles / "run"
    assert [each.name for each in folder.iterdir()] == ["2026_11_23"], "nothing unfinished is left"
    (file,) = (folder / "2026_11_23").iterdir()
    assert file.name == "localhost_8500.xplane.pb"
    assert any(name.endswith(":Mul") for name in names(file)), names(file)
    assert count > 20
    assert max(took) < 1.0, "no request waits for a trace"


def test_nothing_happened(pool: Pool, profiles: Path) -> None:
    assert profile(pool, profile_request(profiles / "idle", 20), SUM).empty_trace


def test_a_version_by_metadata(pool: Pool, profiles: Path) -> None:
    profile(pool, profile_request(profiles / "version", 20, ""), f"{HALF}/123")
    code, text = refusal(lambda: profile(pool, profile_request(profiles, 20), f"{HALF}/124"))
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, f"no worker serves model {HALF} version 124")
    assert len(list((profiles / "version").glob("*/h.xplane.pb"))) == 1


def test_terminate_ends_it_early_and_there_is_one_at_a_time(pool: Pool, profiles: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        began_s = time.monotonic()
        running = executor.submit(profile, pool, profile_request(profiles / "long", 50_000, "long"))
        while True:
            code, text = grpc.StatusCode.OK, ""
            try:
                profile(pool, profile_request(profiles / "second", 1, "second"))
            except grpc.RpcError as error:
                code, text = error.code(), error.details()
                break
        assert (code, text) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "A profile of this worker is being taken already",
        )
        call(pool, "Terminate", TerminateRequest(session_id="unknown"))
        call(pool, "Terminate", TerminateRequest(session_id="long"))
        running.result()
        assert time.monotonic() - began_s < 40
    assert (profiles / "long" / "long" / "h.xplane.pb").exists()


@pytest.mark.parametrize(
    ("request_of", "model", "answer"),
    [
        (profile_request, None, (grpc.StatusCode.INVALID_ARGUMENT, f"Served: {HALF}, {SUM}")),
        (profile_request, "m/x", (grpc.StatusCode.INVALID_ARGUMENT, "expected NAME or NAME/VERSION")),
        (profile_request, "none", (grpc.StatusCode.NOT_FOUND, "no worker serves model none")),
        (lambda _: profile_request("/tmp/elsewhere"), HALF, (grpc.StatusCode.PERMISSION_DENIED, "in or below")),
        (lambda root: profile_request(f"{root}/../../x"), HALF, (grpc.StatusCode.PERMISSION_DENIED, "in or below")),
        (lambda _: profile_request("relative"), HALF, (grpc.StatusCode.INVALID_ARGUMENT, "an absolute path")),
        (lambda root: profile_request(root, 60_001), HALF, (grpc.StatusCode.INVALID_ARGUMENT, "0 to 60 s")),
        (lambda root: profile_request(root, session="a/b"), HALF, (grpc.StatusCode.INVALID_ARGUMENT, "session_id")),
        (lambda root: profile_request(root, host=".."), HALF, (grpc.StatusCode.INVALID_ARGUMENT, "host_name")),
    ],
)
def test_refused(
    pool: Pool, profiles: Path, request_of: Any, model: str | None, answer: tuple[grpc.StatusCode, str]
) -> None:
    code, text = refusal(lambda: profile(pool, request_of(profiles / "refused"), model))
    assert code is answer[0]
    assert answer[1] in text
    assert not (profiles / "refused").exists()


def test_monitor_is_tensorflows_own_refusal(pool: Pool) -> None:
    answer = refusal(lambda: call(pool, "Monitor", TerminateRequest()))
    assert answer == (grpc.StatusCode.UNIMPLEMENTED, "unimplemented.")


def command(pool: Pool, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(MODELPOOL), "profile", *words, f"--runtime_dir={pool.runtime_dir}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)


def test_the_command(pool: Pool, tmp_path: Path) -> None:
    with traffic(pool):
        done = command(pool, HALF, f"--logdir={tmp_path}", "--duration_s=2")
    assert done.returncode == 0, done
    (file,) = tmp_path.glob(f"plugins/profile/*/*.{HALF}.xplane.pb")
    assert done.stdout.splitlines() == [str(file), f"tensorboard --logdir={tmp_path}"]
    assert any(name.endswith(":Mul") for name in names(file)), names(file)
    unknown = command(pool, "none", f"--logdir={tmp_path}")
    assert (unknown.returncode, unknown.stderr) == (1, "modelpool profile: NOT_FOUND: no worker serves model none\n")
    assert command(pool, HALF).returncode == 2


_STOCK = """
import sys
import tensorflow as tf
tf.profiler.experimental.client.trace(sys.argv[1], sys.argv[2], 2000, num_tracing_attempts=1)
"""


def stock_client(pool: Pool, root: Path) -> "subprocess.CompletedProcess[str]":
    """TensorFlow's own client, which TensorBoard's button calls."""
    argv = [sys.executable, "-c", _STOCK, f"grpc://localhost:{pool.grpc_port}", str(root)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)


def test_one_model_needs_no_metadata(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    pool = start_pool(model_config({HALF: models / HALF}), f"--profiler_dir={tmp_path}")
    pool.wait_available(HALF)
    with traffic(pool):
        done = stock_client(pool, tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "logs").glob("plugins/profile/*/*.xplane.pb")
    assert any(name.endswith(":Mul") for name in names(file)), names(file)


def test_no_folder_no_profile(shared_pool: Pool, tmp_path: Path) -> None:
    code, text = refusal(lambda: profile(shared_pool, profile_request(tmp_path / "logs")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "--profiler_dir" in text
    assert not (tmp_path / "logs").exists()
