"""Fake peers for a real frontend process: a supervisor that speaks the control protocol, and workers that echo."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import zmq

from modelpool.supervisor.wire import codec, data, sockets
from modelpool.supervisor.wire.frontend_messages import (
    FrontendHello,
    FrontendListening,
    OpenPorts,
    RoutesAck,
    WorkerReleased,
)
from modelpool.supervisor.wire.frontend_spec import Engine, FrontendSpec
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code
from modelpool.worker import session as session_module
from tests.free_ports import free_ports

WAIT_S = 30.0
Socket = zmq.Socket[bytes]
M = TypeVar("M", bound=Message)
T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, within_s: float = WAIT_S) -> T:
    """The first true value of `probe`; fails when none comes in time."""
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.005)


def version(number: int, *workers: "FakeWorker", **changes: Any) -> VersionRoute:
    routes = tuple(WorkerRoute(worker.incarnation, worker.endpoint) for worker in workers)
    values: dict[str, Any] = {
        "state": ServableState.AVAILABLE,
        "code": Code.OK,
        "message": "",
        "workers": routes,
    } | changes
    return VersionRoute(number, **values)


@dataclass
class Request:
    """What a worker received."""

    sender: bytes
    header: data.RequestHeader
    payload: bytes


class FakeWorker:
    """A ROUTER in a thread. Replies `<name>:<payload>` at once, or keeps requests in `held` until `release`."""

    def __init__(self, context: "zmq.Context[Socket]", folder: Path, incarnation: int, name: str) -> None:
        self.incarnation = Incarnation(incarnation)
        self.endpoint = sockets.data_endpoint(folder, self.incarnation)
        self.name = name
        self.held: list[Request] = []
        self.seen: list[Request] = []
        self.cancelled: list[int] = []
        self.hold = threading.Event()
        self.error: tuple[Code, bytes] | None = None
        self.retry_after_ms = 0
        self._stop = threading.Event()
        self._release = threading.Event()
        self._raw: list[list[bytes]] = []
        self._socket = context.socket(zmq.ROUTER)
        sockets.configure_router(self._socket, sockets.DATA_HWM)
        self._socket.bind(self.endpoint)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Answer all that is held, and whatever comes from now on."""
        self.hold.clear()
        self._release.set()

    def send_raw(self, frames: list[bytes]) -> None:
        self._raw.append(frames)

    def stop(self) -> None:
        """Close the connection, as the end of a process does; what was sent before is still delivered."""
        self._stop.set()
        self._thread.join(WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(10):
                sender, header, payload = self._socket.recv_multipart()
                if data.unpack_request(header).method is data.Method.SEVERAL:
                    for fields, part in data.unpack_requests(payload):
                        self._take(Request(sender, data.RequestHeader(*fields), part))
                else:
                    self._take(Request(sender, data.unpack_request(header), payload))
            if self._release.is_set() or not self.hold.is_set():
                self._release.clear()
                while self.held:
                    self._reply(self.held.pop(0))
            while self._raw:
                self._socket.send_multipart(self._raw.pop(0))
        self._socket.close(int(WAIT_S * 1000))

    def _take(self, request: Request) -> None:
        if request.header.method is data.Method.CANCEL:
            self.cancelled.append(request.header.request_id)
        else:
            self.held.append(request)
            self.seen.append(request)

    def _reply(self, request: Request) -> None:
        code, body = self.error or (Code.OK, f"{self.name}:".encode() + request.payload)
        header = data.pack_reply(request.header.request_id, code, self.retry_after_ms)
        try:
            self._socket.send_multipart([request.sender, header, body])
        except zmq.ZMQError as error:
            # A frontend that is gone wants no answer; a worker goes on, too.
            if error.errno != zmq.EHOSTUNREACH:
                raise


@dataclass
class FakeFrontendOwner:
    """The supervisor's half of the protocol, and the one frontend process it started."""

    context: "zmq.Context[Socket]"
    folder: Path
    spec: FrontendSpec
    received: list[Message] = field(default_factory=list)
    epoch: int = 0
    program: tuple[str, ...] = ("-m", "modelpool.frontend.main")

    def __post_init__(self) -> None:
        self._router = self.context.socket(zmq.ROUTER)
        sockets.configure_router(self._router, sockets.CONTROL_HWM)
        self._router.bind(self.spec.control_endpoint)
        self._name = sockets.identity(sockets.Peer.FRONTEND, self.spec.incarnation)
        raw = codec.encode(self.spec)
        self.process = subprocess.Popen(
            [sys.executable, *self.program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.log = b""
        self._log_thread = threading.Thread(target=self._read_log, daemon=True)
        self._log_thread.start()
        assert self.process.stdin is not None
        self.process.stdin.write(len(raw).to_bytes(4, "big") + raw)
        assert self.expect(FrontendHello).pid == self.process.pid

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        while part := self.process.stderr.read(4096):
            self.log += part

    def send(self, message: Message) -> None:
        self.send_raw([codec.encode(message)])

    def send_raw(self, frames: list[bytes]) -> None:
        self._router.send_multipart([self._name, *frames])

    def receive(self) -> list[Message]:
        """Take in what has arrived; all that nobody has taken out yet."""
        while self._router.poll(0):
            sender, raw = self._router.recv_multipart()
            assert sender == self._name
            self.received.append(codec.decode(raw))
        return self.received

    def expect(self, kind: type[M], matches: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of a kind, taken out of `received`."""

        def found() -> M | None:
            for message in self.receive():
                if isinstance(message, kind) and matches(message):
                    self.received.remove(message)
                    return message
            return None

        message = eventually(found, f"{kind.__name__} in {self.received}; log: {self.log.decode()}")
        assert message is not None
        return message

    def route(self, *models: ModelRoute) -> None:
        """Send a route table and wait until the frontend has acknowledged it."""
        self.epoch += 1
        self.send(RouteTable(self.epoch, models))
        self.expect(RoutesAck, lambda message: message.epoch == self.epoch)

    def expect_released(self, worker: FakeWorker) -> None:
        self.expect(WorkerReleased, lambda message: message.incarnation == worker.incarnation)

    def open_ports(self) -> None:
        self.send(OpenPorts())
        self.expect(FrontendListening)

    def wait_exit(self) -> int:
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        self._log_thread.join(WAIT_S)
        for pipe in (self.process.stdin, self.process.stderr):
            assert pipe is not None
            pipe.close()
        self._router.close()


class Stage:
    """Makes frontends and workers in one folder, and ends them all."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self.engine = engine
        self.context: zmq.Context[Socket] = zmq.Context()
        self.owners: list[FakeFrontendOwner] = []
        self.workers: list[FakeWorker] = []

    def worker(self, name: str = "echo") -> FakeWorker:
        worker = FakeWorker(self.context, self.folder, len(self.workers) + 1, name)
        self.workers.append(worker)
        return worker

    def frontend(self, *, program: str = "", **changes: Any) -> FakeFrontendOwner:
        """A frontend process; `program`: the Python text to run in place of its main module."""
        number = len(self.owners) + 1
        grpc_port, rest_port = free_ports(2)
        values: dict[str, Any] = {
            "incarnation": Incarnation(number),
            "control_endpoint": sockets.ipc_endpoint(self.folder / f"control{number}"),
            "grpc_port": grpc_port,
            "rest_port": rest_port,
            "grpc_socket_path": "",
            "rest_timeout_s": 30.0,
            "max_request_bytes": 4 << 20,
            "log_level": "INFO",
            "engine": self.engine,
        }
        owner = FakeFrontendOwner(
            self.context,
            self.folder,
            FrontendSpec(**(values | changes)),
            **({"program": ("-c", program)} if program else {}),
        )
        self.owners.append(owner)
        return owner

    def close(self) -> None:
        for owner in self.owners:
            owner.close()
        for worker in self.workers:
            worker.stop()
        self.context.destroy(0)


# Whatever clients can see of a frontend is tested with both engines.
OF_BOTH_ENGINES = {
    "test_frames",
    "test_frontend_life",
    "test_frontend_requests",
    "test_grpc_surface",
    "test_health",
    "test_intake",
    "test_odd_heads",
    "test_reflection",
    "test_rest_surface",
    "test_shared_payloads",
    "test_tls",
    "test_unread_answers",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    both = metafunc.module.__name__.rpartition(".")[2] in OF_BOTH_ENGINES
    alone = metafunc.definition.get_closest_marker("grpcio_only") is not None
    metafunc.parametrize("engine", [Engine.GRPCIO, Engine.ENVOY] if both and not alone else [Engine.GRPCIO])


@pytest.fixture
def stage(engine: Engine) -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="mp"))
    stage = Stage(folder, engine)
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(folder)


@pytest.fixture
def frontend(stage: Stage) -> FakeFrontendOwner:
    """A frontend that listens and has no routes yet."""
    owner = stage.frontend()
    owner.open_ports()
    return owner


@pytest.fixture
def channel(frontend: FakeFrontendOwner) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{frontend.spec.grpc_port}") as channel:
        grpc.channel_ready_future(channel).result(WAIT_S)
        yield channel


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Clock:
    """In the place of a worker's `time`: stands still but for long runs."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(session_module, "time", made)
    return made
