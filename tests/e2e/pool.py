"""A real `modelpool serve` for tests: started on free ports, asked by stock clients, stopped, and nothing left.

Every process of a pool inherits a mark in its environment, by which all of them are found however they were forked.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.e2e import tensor_proto
from tests.e2e.eventually import eventually
from tests.free_ports import free_ports

START_WITHIN_S = 60.0
STOP_WITHIN_S = 45.0
CALL_WITHIN_S = 30.0
# What every server of the tests is started with, before its own flags: what pytest was told (see conftest).
COMMON_FLAGS: list[str] = []
# What lies in the folder that a server runs in is no library: it has a `socket.py` here.
HOSTILE = Path(__file__).parents[1] / "hostile_folder"
_MARK = "MODELPOOL_TEST_POOL"
MODELPOOL = Path(sys.executable).parent / "modelpool"


def model_config(
    models: Mapping[str, Path | str],
    policies: Mapping[str, str] | None = None,
    labels: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """ModelServerConfig in text format; `policies`: the text of `model_version_policy` by model; `labels`: by model."""
    entries = []
    for name, base_path in models.items():
        policy = (policies or {}).get(name)
        labelled = "".join(
            f" version_labels {{ key: {json.dumps(label)} value: {version} }}"
            for label, version in (labels or {}).get(name, {}).items()
        )
        entries.append(
            f"  config {{ name: {json.dumps(name)} base_path: {json.dumps(str(base_path))}"
            f' model_platform: "tensorflow" {f"model_version_policy {{ {policy} }}" if policy else ""}{labelled} }}\n'
        )
    return "model_config_list {\n" + "".join(entries) + "}\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    text: str
    content_type: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        """The text of an error body, which has that one key."""
        body = self.json
        assert list(body) == ["error"], body
        text: str = body["error"]
        return text


@dataclass(slots=True)
class Pool:
    """One running server. `root` is its temporary directory: configuration, log, runtime directory."""

    root: Path
    config: str
    flags: Sequence[str] = ()
    program: Sequence[str] = (str(MODELPOOL),)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    grpc_port: int = 0
    rest_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    _channel: Any = None

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self, grpc_port: int = 0, rest_port: int = 0) -> None:
        """Start the server, on free ports unless told; returns at once. `wait_open` waits for it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        free = free_ports(2)
        self.grpc_port, self.rest_port = grpc_port or free[0], rest_port or free[1]
        self.write_config(self.config)
        command = [*self.program, "serve", f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}"]
        command += [f"--model_config_file={self.config_file}", f"--runtime_dir={self.runtime_dir}"]
        command += [f"--crash_dir={self.crash_dir}", *COMMON_FLAGS, *self.flags]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=HOSTILE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, _MARK: self.mark, "CUDA_VISIBLE_DEVICES": "-1"},
                start_new_session=True,
            )

    def write_config(self, config: str) -> None:
        """Replace the model config file in one step."""
        unfinished = self.config_file.with_suffix(".unfinished")
        unfinished.write_text(config, encoding="utf-8")
        unfinished.replace(self.config_file)

    def wait_open(self) -> None:
        """Until both ports answer. Raises AssertionError with the log when the server ended instead."""

        def answers() -> bool:
            assert self.running, f"the server ended with {self.child.returncode}:\n{self.log}"
            with contextlib.suppress(OSError):
                return self.get("/pool/v1/status").status == 200
            return False

        eventually(answers, START_WITHIN_S, "the server answers")

    def wait_available(self, *models: str) -> None:
        """Until each model's every version that is listed is AVAILABLE, and there is one."""

        def available() -> bool:
            versions = [self.versions(name) for name in models]
            return all(each and set(each.values()) == {"AVAILABLE"} for each in versions)

        eventually(available, START_WITHIN_S, f"{models} available")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end, return the exit code."""
        self.child.send_signal(how)
        return self.child.wait(STOP_WITHIN_S)

    def destroy(self) -> None:
        """End it in any state: in order if it can, else by killing every process of it."""
        if self._channel is not None:
            self._channel.close()
        if self.process is not None and self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait(STOP_WITHIN_S)

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "not started"
        return self.process

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def config_file(self) -> Path:
        return self.root / "models.config"

    @property
    def runtime_dir(self) -> Path:
        return self.root / "run"

    @property
    def crash_dir(self) -> Path:
        return self.root / "crashes"

    @property
    def log_path(self) -> Path:
        return self.root / "serve.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def crash_reports(self) -> list[Any]:
        """Those that are kept, the oldest first."""
        return [json.loads(path.read_text()) for path in sorted(self.crash_dir.glob("*.json"))]

    def processes(self) -> list[psutil.Process]:
        """Every living process of this pool, whoever its parent is."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    # -- what it says of itself ----------------------------------------------------------------------------------

    def status(self) -> Any:
        """The document of `GET /pool/v1/status`."""
        reply = self.get("/pool/v1/status")
        assert reply.status == 200, reply
        return reply.json

    def model(self, name: str) -> Any:
        """One model's part of the status."""
        return next(model for model in self.status()["models"] if model["name"] == name)

    def worker(self, name: str, version: int = 1) -> Any:
        """The one worker of a version."""
        versions = {each["version"]: each for each in self.model(name)["versions"]}
        (worker,) = versions[version]["workers"]
        return worker

    def versions(self, name: str) -> dict[int, str]:
        """The states of a model's versions, by REST."""
        reply = self.get(f"/v1/models/{name}")
        if reply.status != 200:
            return {}
        return {int(each["version"]): each["state"] for each in reply.json["model_version_status"]}

    # -- clients -------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        return self._channel

    def stub(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def predict(self, request: Any, timeout_s: float = CALL_WITHIN_S) -> Any:
        """PredictResponse; raises grpc.RpcError."""
        return self.stub().Predict(request, timeout=timeout_s)

    def call_raw(self, method: str, body: bytes) -> bytes:
        """Send bytes as they are to a method of PredictionService."""
        call = self.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        answer: bytes = call(body, timeout=CALL_WITHIN_S)
        return answer

    def model_status(self, name: str, version: int | None = None) -> Any:
        """GetModelStatusResponse; raises grpc.RpcError."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        return model_service_pb2_grpc.ModelServiceStub(self.channel).GetModelStatus(request, timeout=CALL_WITHIN_S)

    def reload(self, config: str) -> Any:
        """ReloadConfigResponse to HandleReloadConfigRequest with a ModelServerConfig in text; raises grpc.RpcError."""
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        stub = model_service_pb2_grpc.ModelServiceStub(self.channel)
        return stub.HandleReloadConfigRequest(request, timeout=CALL_WITHIN_S)

    def number_by_grpc(self, model: str, version: int | None = None, label: str = "") -> int:
        """The version of a copy of the model `numbered` that answers; raises grpc.RpcError."""
        reply = self.predict(predict_request(model, {"x": tensor_proto.tensor([0.0])}, version=version, label=label))
        (number,) = tensor_proto.values(reply.outputs["y"])
        assert number == reply.model_spec.version.value, reply
        return int(number)

    def number_by_rest(self, model: str, label: str = "") -> int:
        """The same over REST."""
        reply = self.post(f"/v1/models/{model}{f'/labels/{label}' if label else ''}:predict", {"instances": [0.0]})
        assert reply.status == 200, reply
        (number,) = reply.json["predictions"]
        return int(number)

    def get(self, path: str) -> Reply:
        return self.http("GET", path)

    def post(self, path: str, body: Any) -> Reply:
        """POST bytes or a text as they are, anything else as JSON."""
        return self.http("POST", path, body if isinstance(body, bytes | str) else json.dumps(body))

    def http(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=CALL_WITHIN_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.read().decode(), response.getheader("Content-Type", ""))


def predict_request(
    model: str, inputs: Mapping[str, Any], *, version: int | None = None, signature: str = "", label: str = ""
) -> Any:
    """A PredictRequest of ready TensorProtos."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """The code and the text with which a gRPC call is refused."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"not refused: {answer}")


def put_version(source: Path, base_path: Path, name: str) -> None:
    """Copy a version directory, and rename it into place when it is whole."""
    unfinished = base_path / f"unfinished-{name}"
    shutil.copytree(source, unfinished)
    unfinished.rename(base_path / name)


@contextlib.contextmanager
def starting_pool(config: str, *flags: str) -> Iterator[Pool]:
    """A pool whose server has just been started, in a short directory of its own; nobody has waited for it."""
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as root:
        pool = Pool(Path(root), config, flags)
        pool.start()
        try:
            yield pool
        finally:
            pool.destroy()


@contextlib.contextmanager
def running_pool(config: str, *flags: str, program: Sequence[str] = (str(MODELPOOL),)) -> Iterator[Pool]:
    """A pool that is open, in a short directory of its own; afterwards no process of it is left, or the test fails."""
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as root:
        pool = Pool(Path(root), config, flags, program)
        try:
            pool.start()
            pool.wait_open()
            yield pool
        except BaseException:
            print(f"-- log of the pool\n{pool.log if pool.log_path.exists() else ''}")
            raise
        finally:
            orphans = [] if pool.process is None or pool.running else pool.processes()
            pool.destroy()
        assert not orphans, f"left behind by a server that had ended: {orphans}"
        eventually(lambda: not pool.processes(), what="no process of the pool is left")


StartPool = Callable[..., Pool]
