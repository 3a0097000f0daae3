"""The life of a frontend process: handshake, routes acknowledged and released, ports, drain, and its ends."""

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import bench_http2
import grpc
import pytest

from modelpool.supervisor.wire import codec
from modelpool.supervisor.wire.frontend_messages import (
    DrainFrontend,
    FrontendBindFailed,
    FrontendStats,
    OpenPorts,
    RoutesAck,
    WorkerDied,
    WorkerReleased,
)
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, resident_mb, version

PREDICT = "/tensorflow.serving.PredictionService/Predict"
REQUEST_M = b"\x0a\x03\x0a\x01m"


def test_a_worker_is_released_only_when_nothing_is_in_flight(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    old, new, idle = stage.worker("old"), stage.worker("new"), stage.worker("idle")
    old.hold.set()
    frontend.route(ModelRoute("m", (version(1, old),), {}), ModelRoute("n", (version(1, idle),), {}))
    call = channel.unary_unary(PREDICT).future(REQUEST_M, timeout=WAIT_S)
    eventually(lambda: old.held, "the request")
    frontend.route(ModelRoute("m", (version(1, old), version(2, new)), {}))
    frontend.expect_released(idle)
    frontend.route(ModelRoute("m", (version(2, new),), {}))
    assert channel.unary_unary(PREDICT)(REQUEST_M, timeout=WAIT_S).startswith(b"new:")
    busy = frontend.expect(FrontendStats, lambda message: message.in_flight == {1: 1, 2: 0})
    assert busy.answered == 1
    assert not [message for message in frontend.receive() if isinstance(message, WorkerReleased)]
    old.release()
    assert call.result(WAIT_S).startswith(b"old:")
    frontend.expect_released(old)
    frontend.expect(FrontendStats, lambda message: message.in_flight == {2: 0} and message.answered == 2)


def test_the_acknowledgement_comes_before_the_release(stage: Stage, frontend: FakeFrontendOwner) -> None:
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    frontend.send(RouteTable(2, ()))
    eventually(lambda: len(_of_routes(frontend)) == 2, "ack and release")
    assert _of_routes(frontend) == [RoutesAck(2), WorkerReleased(worker.incarnation)]


def _of_routes(frontend: FakeFrontendOwner) -> list[object]:
    return [message for message in frontend.receive() if isinstance(message, RoutesAck | WorkerReleased)]


def test_an_old_table_is_ignored_and_a_dead_worker_is_not_released(stage: Stage, frontend: FakeFrontendOwner) -> None:
    worker = stage.worker()
    frontend.route()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    frontend.send(RouteTable(1, ()))
    frontend.send(WorkerDied(worker.incarnation, "exit code 1"))
    frontend.send(WorkerDied(worker.incarnation, "exit code 1"))
    frontend.route()
    assert _of_routes(frontend) == []
    # Its stderr comes by another way than its acknowledgement.
    eventually(lambda: b"ignored an old route table epoch=1" in frontend.log, "the log line")


def test_garbage_on_the_control_socket(stage: Stage, frontend: FakeFrontendOwner) -> None:
    for frames in (
        [b""],
        [b"\xc1"],
        [b"a", b"b"],
        [codec.encode(OpenPorts())[:-1]],
        [b"\x91\xa4Nope"],
        [os.urandom(99)],
    ):
        frontend.send_raw(frames)
    frontend.send(FrontendStats({}, 0))
    frontend.route()
    assert frontend.process.poll() is None
    assert b"Traceback" not in frontend.log


@pytest.mark.parametrize(("field", "name"), [("grpc_port", "gRPC port"), ("rest_port", "REST port")])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_a_taken_port_is_named(stage: Stage, field: str, name: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        frontend = stage.frontend(**{field: port})
        frontend.send(OpenPorts())
        assert f"cannot listen on {name} {port}: " in frontend.expect(FrontendBindFailed).message
        assert frontend.wait_exit() == 1


MOST_RESIDENT_MB = {Engine.GRPCIO: 80, Engine.ENVOY: 120}


def test_unix_socket(stage: Stage) -> None:
    path = stage.folder / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    frontend = stage.frontend(grpc_socket_path=str(path), grpc_port=0, rest_port=0)
    frontend.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    frontend.open_ports()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert channel.unary_unary(PREDICT)(REQUEST_M, timeout=WAIT_S).startswith(b"echo:")
        second = stage.frontend(grpc_socket_path=str(path))
        second.send(OpenPorts())
        text = second.expect(FrontendBindFailed).message
        assert text == f"--grpc_socket_path={path}: another process listens on this socket"
        assert second.wait_exit() == 1
        assert channel.unary_unary(PREDICT)(REQUEST_M, timeout=WAIT_S).startswith(b"echo:")
    assert stat.S_ISSOCK(path.stat().st_mode)
    frontend.send(DrainFrontend(1.0))
    assert frontend.wait_exit() == 0
    assert not path.exists()


@pytest.mark.parametrize("case", ["file", "folder", "long"])
def test_a_bad_socket_path_is_named(stage: Stage, case: str) -> None:
    path = {"file": stage.folder / "file", "folder": stage.folder / "no" / "s", "long": stage.folder / ("x" * 120)}[
        case
    ]
    (stage.folder / "file").write_text("precious")
    frontend = stage.frontend(grpc_socket_path=str(path))
    frontend.send(OpenPorts())
    reason = {
        "file": "expected a socket or nothing there, got another file",
        "folder": f"cannot create a socket in {path.parent}",
        "long": f"expected at most 107 bytes, got {len(str(path))}",
    }[case]
    assert frontend.expect(FrontendBindFailed).message == f"--grpc_socket_path={path}: {reason}"
    assert frontend.wait_exit() == 1
    assert (stage.folder / "file").read_text() == "precious"


def test_listens_on_ipv4_and_ipv6(stage: Stage, frontend: FakeFrontendOwner) -> None:
    frontend.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
        target = f"[{host}]" if ":" in host else host
        with grpc.insecure_channel(f"{target}:{frontend.spec.grpc_port}") as channel:
            assert channel.unary_unary(PREDICT)(REQUEST_M, timeout=WAIT_S).startswith(b"echo:")
        client = http.client.HTTPConnection(host, frontend.spec.rest_port, timeout=WAIT_S)
        client.request("GET", "/v1/models/m")
        assert client.getresponse().status == 200
        client.close()


def test_nothing_listens_before_open_ports(stage: Stage) -> None:
    frontend = stage.frontend()
    frontend.route()
    for port in (frontend.spec.grpc_port, frontend.spec.rest_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    frontend.send(DrainFrontend(1.0))
    assert frontend.wait_exit() == 0


def test_drain_finishes_what_is_in_flight(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    idle = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    idle.request("GET", "/v1/models/m")
    assert idle.getresponse().read()
    client = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    client.request("POST", "/v1/models/m:predict", b"{}")
    call = channel.unary_unary(PREDICT).future(REQUEST_M, timeout=WAIT_S)
    eventually(lambda: len(worker.held) == 2, "the requests")
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        frontend.process.send_signal(signal_number)
    frontend.send(DrainFrontend(WAIT_S))
    eventually(lambda: _refuses(frontend.spec.rest_port), "the REST port closed")
    eventually(lambda: _refuses(frontend.spec.grpc_port), "the gRPC port closed")
    assert frontend.process.poll() is None
    assert idle.sock.recv(1) == b"", "an idle connection is closed while others are served"
    with pytest.raises(grpc.RpcError) as sent_away:
        channel.unary_unary(PREDICT)(REQUEST_M, timeout=WAIT_S)
    assert sent_away.value.code() is grpc.StatusCode.UNAVAILABLE, "the old connection takes no new call (GOAWAY)"
    worker.release()
    assert call.result(WAIT_S).startswith(b"echo:")
    reply = client.getresponse()
    assert (reply.status, reply.read()) == (200, b"echo:{}")
    assert reply.getheader("Connection") == "close"
    assert frontend.wait_exit() == 0
    client.close()
    idle.close()
    assert b"Traceback" not in frontend.log


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_drain_says_goaway_to_an_idle_client(frontend: FakeFrontendOwner) -> None:
    """First without a last stream, for what is on its way; then for good (RFC 9113, 6.8)."""
    with socket.create_connection(("127.0.0.1", frontend.spec.grpc_port), WAIT_S) as client:
        client.sendall(bench_http2.PREFACE + bench_http2.frame(bench_http2.SETTINGS, 0, 0))
        came = client.recv(9)
        frontend.send(DrainFrontend(WAIT_S))
        while part := client.recv(65536):
            came += part
    said: list[int] = []  # the last stream that counts
    while came:
        size, kind = int.from_bytes(came[:3], "big"), came[3]
        if kind == bench_http2.GOAWAY:
            said.append(int.from_bytes(came[9:13], "big"))
        came = came[9 + size :]
    assert said == [(1 << 31) - 1, 0]
    assert frontend.wait_exit() == 0


def test_drain_ends_at_its_timeout(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    worker = stage.worker()
    worker.hold.set()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    client = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    client.request("POST", "/v1/models/m:predict", b"{}")
    call = channel.unary_unary(PREDICT).future(REQUEST_M, timeout=WAIT_S)
    eventually(lambda: len(worker.held) == 2, "the requests")
    start = time.monotonic()
    frontend.send(DrainFrontend(0.5))
    assert frontend.wait_exit() == 0
    assert time.monotonic() - start < 3
    assert call.exception(WAIT_S) is not None
    client.close()


def test_the_end_of_the_lifeline_ends_the_process(stage: Stage) -> None:
    path = stage.folder / "grpc.sock"
    frontend = stage.frontend(grpc_socket_path=str(path))
    frontend.open_ports()
    assert frontend.process.stdin is not None
    frontend.process.stdin.close()
    assert frontend.wait_exit() == 1
    assert not path.exists()


def test_dies_with_its_parent() -> None:
    """A parent that is killed while somebody else still holds the lifeline open."""
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'modelpool.frontend.main'], stdin=0)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    reader, writer = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    eventually(lambda: "modelpool.frontend.main" in _command(pid) and _ignores_sigterm(pid), "the frontend")
    parent.kill()
    parent.wait(WAIT_S)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or _state(pid) == "Z", "its end")
    parent.stdout.close()
    os.close(writer)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _ignores_sigterm(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("raw", [b"\0\0\0\x05abc", b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1"])
def test_a_bad_spec_ends_the_process(raw: bytes) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "modelpool.frontend.main"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        process.stdin.write(raw)
        # Before that it takes the end of its standard input for the end of the supervisor.
        eventually(lambda: process.poll() is not None or _ignores_sigterm(process.pid), "the frontend")
        _, log = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert b"frontend failed" in log


_WITH_A_BUG = """
import sys
from modelpool.frontend import core, dealer, main, session
def fail(*_):
    raise RuntimeError("a bug")
{bug}
sys.exit(main.main())
"""
BUGS = {
    "message": "session.Session._handle_routes = fail",
    "reader": "session.Session._handle_routes = lambda *_: setattr(dealer.Dealer, '_readable', fail)",
    "timer": "core.Core._settle = fail",
}


@pytest.mark.grpcio_only
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_a_callback_ends_the_process(stage: Stage, bug: str) -> None:
    frontend = stage.frontend(program=_WITH_A_BUG.format(bug=BUGS[bug]), rest_timeout_s=0.1)
    frontend.open_ports()
    if bug == "timer":
        worker = stage.worker()
        worker.hold.set()
        frontend.route(ModelRoute("m", (version(1, worker),), {}))
        client = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
        client.request("POST", "/v1/models/m:predict", b"{}")
        assert frontend.wait_exit() == 1
        client.close()
    else:
        frontend.send(RouteTable(1, ()))
        assert frontend.wait_exit() == 1
    eventually(lambda: b"RuntimeError: a bug" in frontend.log, "the traceback")
    assert b"frontend failed" in frontend.log


@pytest.mark.grpcio_only
def test_a_failure_of_somebody_else_s_callback_is_logged_only(stage: Stage) -> None:
    bug = "session.Session._handle_routes = lambda self, _: self._loop.call_soon(fail)"
    frontend = stage.frontend(program=_WITH_A_BUG.format(bug=bug))
    frontend.open_ports()
    frontend.send(RouteTable(1, ()))
    eventually(lambda: b"RuntimeError: a bug" in frontend.log, "the traceback")
    frontend.send(DrainFrontend(1.0))
    assert frontend.wait_exit() == 0


def test_memory_and_imports(frontend: FakeFrontendOwner) -> None:
    assert resident_mb(frontend.process.pid) < MOST_RESIDENT_MB[frontend.spec.engine]
    maps = Path(f"/proc/{frontend.process.pid}/maps").read_text()
    assert "libtensorflow" not in maps
    assert "numpy" not in maps
