"""Warmup records and golden requests before a version serves; and, with a worker alone, what no file asks for."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
import zmq
from tensorflow_serving.apis import predict_pb2

from modelpool.supervisor.wire import codec, data, flight_recorder, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import RecordWarmup, StopWorker, WarmupRecorded, WorkerReady
from modelpool.supervisor.wire.worker_spec import WorkerSpec
from tests.e2e.eventually import eventually
from tests.e2e.pool import MODELPOOL, Pool, StartPool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

# Model: the code it is refused with, and the text, {path} being its version directory.
REFUSED = {
    "warm_classify_fails": (Code.INVALID_ARGUMENT, 'contain at least one of "classes" or "scores"'),
    "warm_regress_fails": (Code.INVALID_ARGUMENT, "Input is empty."),
    "warm_multi_fails": (Code.UNIMPLEMENTED, "Unsupported signature method_name: tensorflow/serving/predict"),
    "warm_session_run": (Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 5"),
    "warm_streamed": (Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 7"),
    "warm_many": (
        Code.INVALID_ARGUMENT,
        "Number of warmup records exceeds the maximum (1000) at {path}/assets.extra/tf_serving_warmup_requests",
    ),
    "warm_cut": (Code.DATA_LOSS, ". Please verify your warmup data is in TFRecord format."),
    "golden_predict": (
        Code.FAILED_PRECONDITION,
        'Golden request 1 of {path}/assets.extra/golden_requests: output "y"[2]: got 4.0, want 4.5',
    ),
    "golden_regress": (
        Code.FAILED_PRECONDITION,
        "Golden request 2 of {path}/assets.extra/golden_requests: regressions[1].value: got 3.0, want 3.25",
    ),
    "golden_classify": (
        Code.FAILED_PRECONDITION,
        "Golden request 3 of {path}/assets.extra/golden_requests: classifications[0].classes[0].label: "
        "got '', want 'two'",
    ),
    "golden_cut": (Code.DATA_LOSS, ". Please verify your golden requests are in TFRecord format."),
    "golden_dangling": (Code.NOT_FOUND, "{path}/assets.extra/golden_requests; No such file or directory"),
}
SERVED = ("warm_kinds", "golden_pass")


@pytest.fixture(scope="module")
def warmed(models: Path) -> Iterator[Pool]:
    """A pool of all models with warmup records or golden requests, each settled."""
    names = (*SERVED, *REFUSED)
    with running_pool(model_config({name: models / name for name in names}), "--max_num_load_retries=0") as pool:
        pool.wait_available(*SERVED)
        eventually(lambda: all(pool.versions(name) == {1: "END"} for name in REFUSED), 60.0, "all refused")
        yield pool


def test_all_kinds_of_records_are_run(warmed: Pool) -> None:
    assert "warm records=5 iterations=1" in warmed.log
    reply = warmed.predict(predict_request("warm_kinds", {"x": tensor([1.0])}))
    assert values(reply.outputs["y"]) == [2.5]


def test_golden_requests_answered(warmed: Pool) -> None:
    assert "golden requests=3" in warmed.log
    reply = warmed.predict(predict_request("golden_pass", {"x": tensor([1.0])}))
    assert values(reply.outputs["y"]) == [2.5]


@pytest.mark.parametrize("model", REFUSED)
def test_a_version_that_fails_does_not_serve(warmed: Pool, models: Path, model: str) -> None:
    code, text = REFUSED[model]
    (state,) = warmed.model_status(model).model_version_status
    assert (state.state, Code(state.status.error_code)) == (50, code), state
    assert text.format(path=models / model / "1") in state.status.error_message
    with pytest.raises(grpc.RpcError) as caught:
        warmed.predict(predict_request(model, {"x": tensor([1.0])}))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_new_version_with_a_wrong_golden_answer_leaves_the_old_one_serving(
    start_pool: StartPool, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "canary"
    shutil.copytree(models / "golden_pass" / "1", base / "1")
    pool = start_pool(model_config({"canary": base}), "--max_num_load_retries=0")
    pool.wait_available("canary")
    pid = pool.worker("canary", 1)["pid"]
    shutil.copytree(models / "golden_predict" / "1", base / "unfinished")
    (base / "unfinished").rename(base / "2")
    eventually(lambda: pool.versions("canary") == {1: "AVAILABLE", 2: "END"}, 30.0)
    (refused,) = pool.model_status("canary", 2).model_version_status
    assert Code(refused.status.error_code) is Code.FAILED_PRECONDITION
    assert 'output "y"[2]: got 4.0, want 4.5' in refused.status.error_message
    reply = pool.predict(predict_request("canary", {"x": tensor([1.0])}))
    assert reply.model_spec.version.value == 1
    assert pool.worker("canary", 1)["pid"] == pid


def test_a_recording_ends_with_the_command_that_waits_for_it(
    start_pool: StartPool, models: Path, tmp_path: Path
) -> None:
    config = tmp_path / "pool.toml"
    config.write_text("[defaults]\nrecord_warmup = true\n")
    pool = start_pool(model_config({"m": models / "half_plus_two"}), f"--pool_config_file={config}")
    pool.wait_available("m")

    def command(file: Path, seconds: float) -> "subprocess.Popen[str]":
        arguments = ["m", f"--output={file}", f"--seconds={seconds}", f"--runtime_dir={pool.runtime_dir}"]
        said = subprocess.PIPE
        return subprocess.Popen([MODELPOOL, "warmup", "record", *arguments], stdout=said, stderr=said, text=True)

    with command(tmp_path / "first", 3600.0) as first:
        eventually(lambda: f"warmup recording started path={tmp_path}/first " in pool.log, 30.0, "it is recorded")
        first.kill()
    eventually(lambda: f"warmup recording dropped path={tmp_path}/first" in pool.log, 30.0, "nobody waits for it")
    with command(tmp_path / "second", 0.1) as second:
        _, refusal = second.communicate(timeout=30)
    text = "No request was answered within 0.1 s; nothing was written"
    assert (second.returncode, refusal) == (1, f"modelpool warmup record: FAILED_PRECONDITION: {text}\n")
    with command(tmp_path / "no" / "such" / "file", 3600.0) as nowhere:
        _, refusal = nowhere.communicate(timeout=30)
    text = f"cannot write {tmp_path}/no/such/file: FileNotFoundError: No such file or directory"
    assert (nowhere.returncode, refusal) == (1, f"modelpool warmup record: NOT_FOUND: {text}\n")


# -- a worker alone, with this test as its supervisor and its frontend ---------------------------------------------

_WORKER = """
import sys
from pathlib import Path

from modelpool.supervisor.wire import codec
from modelpool.worker import main
inherited = main.Inherited(int(sys.argv[2]), int(sys.argv[3]), -1, 2)
sys.exit(main.run(codec.decode(Path(sys.argv[1]).read_bytes()), inherited, "INFO"))
"""
_WITHIN_MS = 60_000
M = TypeVar("M", bound=Message)


class LoneWorker:
    """One worker process without a fork server; it has to be READY before it is asked anything."""

    def __init__(self, directory: Path, spec: WorkerSpec) -> None:
        self.spec = spec
        self.log_path = directory / "worker.log"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = self._context.socket(zmq.ROUTER)
        self._control.bind(spec.control_endpoint)
        self._requests = self._context.socket(zmq.DEALER)
        self._requests.setsockopt(zmq.IDENTITY, sockets.identity(Peer.FRONTEND, Incarnation(1)))
        self._lifeline_fd, self._lifeline_end = os.pipe()
        self._recorder_fd = flight_recorder.create("test")
        spec_file = directory / "spec"
        spec_file.write_bytes(codec.encode(spec))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(spec_file), str(self._lifeline_fd), str(self._recorder_fd)],
                stderr=log,
                pass_fds=[self._lifeline_fd, self._recorder_fd],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self.hear(WorkerReady)
        self._requests.connect(spec.data_endpoint)

    def tell(self, message: Message) -> None:
        self._control.send_multipart([sockets.identity(Peer.WORKER, self.spec.incarnation), codec.encode(message)])

    def hear(self, kind: type[M]) -> M:
        """The next message of that kind; others are passed over."""
        while self._control.poll(_WITHIN_MS):
            message = codec.decode(self._control.recv_multipart()[1])
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__}:\n{self.log_path.read_text()}")

    def ask(self, method: Method, payload: bytes) -> tuple[Code, bytes]:
        self._requests.send_multipart([data.pack_request(1, data.NO_DEADLINE_NS, time.monotonic_ns(), method), payload])
        assert self._requests.poll(_WITHIN_MS), self.log_path.read_text()
        ((_, code, _, reply),) = data.unpack_replies(self._requests.recv_multipart())
        return code, reply

    def stop(self) -> int:
        self.tell(StopWorker())
        return self._process.wait(_WITHIN_MS / 1000)

    def destroy(self) -> None:
        self._process.kill()
        self._process.wait()
        self._context.destroy(linger=0)
        os.close(self._lifeline_fd)
        os.close(self._lifeline_end)
        os.close(self._recorder_fd)


def lone_spec(directory: Path, path: Path, incarnation: int) -> WorkerSpec:
    return WorkerSpec(
        incarnation=Incarnation(incarnation),
        name="half_plus_two",
        version=1,
        path=str(path),
        device="cpu",
        cuda_visible_devices="-1",
        data_endpoint=f"ipc://{directory}/data",
        control_endpoint=f"ipc://{directory}/control",
        tags=("serve",),
        warmup=True,
        warmup_iterations=2,
        auto_warmup=True,
        golden_rtol=1e-5,
        golden_atol=1e-6,
        load_priority=LoadPriority.IDLE,
        heartbeat_s=0.5,
    )


def predict_payload(*numbers: float) -> bytes:
    payload: bytes = predict_request("half_plus_two", {"x": tensor(numbers)}).SerializeToString()
    return payload


def test_auto_warmup_and_recording(models: Path, tmp_path: Path) -> None:
    """A model without records is warmed from its signatures; its traffic becomes the records of the next start."""
    version = tmp_path / "1"
    shutil.copytree(models / "half_plus_two" / "00000123", version)
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    worker = LoneWorker(tmp_path, lone_spec(tmp_path, version, 1))
    try:
        log = worker.log_path.read_text()
        assert "warm signatures=1" in log, "serving_default runs on zeros"
        assert "auto warmup run failed signature=regress_x_to_y " in log, "an empty tf.Example lacks x"

        worker.tell(RecordWarmup(1, 10, 0.05, str(file)))
        idle = worker.hear(WarmupRecorded)
        assert idle == WarmupRecorded(
            1, Code.FAILED_PRECONDITION, "No request was answered within 0.05 s; nothing was written", 0
        )
        assert not file.exists()

        worker.tell(RecordWarmup(2, 10, 2.0, str(file)))
        worker.tell(RecordWarmup(3, 10, 2.0, str(file)))
        second = worker.hear(WarmupRecorded)
        assert (second.token, second.code) == (3, Code.FAILED_PRECONDITION)
        assert second.message == "A warmup recording of this model is under way already"
        assert worker.ask(Method.PREDICT, predict_payload(1.0, 2.0))[0] is Code.OK
        assert worker.ask(Method.PREDICT, predict_request("m", {"z": tensor([1.0])}).SerializeToString())[0] is not (
            Code.OK
        )
        rest = json.dumps({"instances": [1.0, 3.0]}).encode()
        assert worker.ask(Method.REST_PREDICT, rest)[0] is Code.OK
        assert worker.hear(WarmupRecorded) == WarmupRecorded(2, Code.OK, "", 2)
        assert file.read_bytes().count(b"half_plus_two") == 2
        assert [each.name for each in file.parent.iterdir()] == [file.name], "no temporary file is left"

        worker.tell(RecordWarmup(4, 10, 3600.0, str(file)))
        assert worker.stop() == 0
        assert worker.hear(WarmupRecorded).code is Code.UNAVAILABLE
    finally:
        worker.destroy()

    again = LoneWorker(tmp_path, lone_spec(tmp_path, version, 2))
    try:
        assert "warm records=2 iterations=2" in again.log_path.read_text()
        code, reply = again.ask(Method.PREDICT, predict_payload(1.0))
        assert code is Code.OK
        assert values(predict_pb2.PredictResponse.FromString(reply).outputs["y"]) == [2.5]
        assert again.stop() == 0
    finally:
        again.destroy()
