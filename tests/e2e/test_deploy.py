"""The service files: the container's entry point as process 1 of a PID namespace, and what systemd would be told."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import MODELPOOL, START_WITHIN_S, STOP_WITHIN_S, free_ports

ENTRYPOINT = Path(__file__).resolve().parent.parent.parent / "deploy" / "entrypoint"
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")


@dataclass
class Container:
    """What `unshare` has started; `init` is process 1 inside."""

    outer: subprocess.Popen[bytes]
    rest_port: int
    notified: socket.socket
    log: Path

    @property
    def init(self) -> psutil.Process:
        (init,) = psutil.Process(self.outer.pid).children()
        return init

    def get(self, path: str) -> int:
        """The status of a page; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    def predict(self, name: str) -> object:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)) as connection:
            connection.request("POST", f"/v1/models/{name}:predict", json.dumps({"instances": [1.0]}))
            return json.loads(connection.getresponse().read())


@pytest.fixture
def container(models: Path) -> Iterator[Container]:
    allowed = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"no PID namespace can be made here: {allowed.stderr.strip()}")
    grpc_port, rest_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as root, contextlib.ExitStack() as stack:
        notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notified.bind(f"{root}/notify")
        notified.setblocking(False)
        environment = {
            **os.environ,
            "PATH": f"{MODELPOOL.parent}:{os.environ['PATH']}",
            "MODEL_NAME": "half_plus_two",
            "MODEL_BASE_PATH": str(models),
            "NOTIFY_SOCKET": f"{root}/notify",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        flags = [f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--runtime_dir={root}/run"]
        log = stack.enter_context(open(f"{root}/log", "wb"))
        command = [*UNSHARE, str(ENTRYPOINT), *flags]
        outer = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield Container(outer, rest_port, notified, Path(root) / "log")
        finally:
            outer.kill()
            outer.wait(STOP_WITHIN_S)


def test_process_one_serves_reaps_and_drains(container: Container) -> None:
    eventually(lambda: container.get("/readyz") == 200, START_WITHIN_S, f"ready; log: {container.log.read_text()}")
    assert container.predict("half_plus_two") == {"predictions": [2.5]}
    init = container.init
    assert "modelpool" in " ".join(init.cmdline()), "the shell has given its place to the supervisor"
    eventually(lambda: datagram(container) == b"READY=1", what="the service manager is told")

    orphan = ("nsenter", f"--target={init.pid}", "--pid", "--mount", "sh", "-c", "sleep 0.01 & exit 0")
    subprocess.run(orphan, check=True, env={"PATH": os.environ["PATH"]})
    eventually(lambda: no_orphan_and_no_zombie(init), what="process 1 has reaped a stranger's orphan")

    init.send_signal(signal.SIGTERM)
    assert container.outer.wait(STOP_WITHIN_S) == 0, container.log.read_text()
    assert datagram(container) == b"STOPPING=1"


def no_orphan_and_no_zombie(init: psutil.Process) -> bool:
    children = init.children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        return all(each.name() != "sleep" and each.status() != psutil.STATUS_ZOMBIE for each in children)
    return False


def datagram(container: Container) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return container.notified.recv(100)
    return b""


def test_the_unit_s_stop_time_fits_the_drain() -> None:
    unit = (ENTRYPOINT.parent / "modelpool.service").read_text()
    values = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert float(values["TimeoutStopSec"]) >= 30.0 + 10.0, "drain_timeout_s by default, and what the rest may take"
    assert values["KillMode"] == "mixed"
    assert values["Type"] == "notify"
