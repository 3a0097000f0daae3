"""A server under measurement: started on free ports with a mark in its environment, asked, stopped.

Everything on loopback. A pool's state is asked for at its control socket, so that asking takes nothing from the
frontend that is being measured. Knows nothing of what is measured.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_inputs
import bench_memory
import bench_workloads
import child_process
import grpc
from bench_memory import Memory

from modelpool.supervisor import control_client
from modelpool.supervisor.wire.status import PoolError

SCRIPTS = bench_inputs.ROOT / "scripts"
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
POLL_S = 0.005


class Deadline:
    """When a sub-bench must be over: `--limit_s` from now."""

    def __init__(self, limit_s: float) -> None:
        self._until_s = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    def has(self, wanted_s: float) -> bool:
        """Whether something that takes so long still fits."""
        return self.left_s > wanted_s

    def wait(self, predicate: Callable[[], bool], what: str, period_s: float = 0.1) -> None:
        """Until the predicate holds; ends the bench when the time is over."""
        while not predicate():
            if not self.left_s:
                raise SystemExit(f"--limit_s is over: {what} did not come")
            time.sleep(period_s)


@dataclass(slots=True)
class Server:
    """`command` is started by `started` and stopped at the end of it. `runtime_dir`: of a pool."""

    name: str
    port: int
    command: list[str]
    log: Path
    runtime_dir: Path | None = None
    rest_port: int = 0
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    first_answer_s: float = 0.0

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """From the start on, whether it answers or not."""
        environment = {**os.environ, bench_memory.MARK: self.mark, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=bench_inputs.ROOT, env=environment)
        try:
            yield process
        finally:
            child_process.end(process, STOP_WITHIN_S)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From the first right answer on; `first_answer_s` is how long that took."""
        began_s = time.monotonic()
        with self.started() as process:
            while not self._answers():
                self.require_life(process)
                if time.monotonic() - began_s > START_WITHIN_S:
                    raise SystemExit(f"{self.name} does not answer:\n{self._log_tail()}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
            self.first_answer_s = time.monotonic() - began_s
            yield

    def require_life(self, process: subprocess.Popen[bytes]) -> None:
        """End the bench with the server's last words when it has ended."""
        if process.poll() is not None:
            raise SystemExit(f"{self.name} ended with {process.returncode}:\n{self._log_tail()}")

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def address(self, rest: bool = False) -> str:
        return f"127.0.0.1:{self.rest_port if rest else self.port}"

    def cpu_s(self) -> dict[str, float]:
        """CPU time of its processes up to now, by role."""
        return bench_memory.cpu_s(self.pids(), self.roles())

    def roles(self) -> dict[int, str]:
        """What each of its processes is; a plain server has one kind."""
        if self.runtime_dir is None:
            return dict.fromkeys(self.pids(), self.name)
        return bench_memory.roles(self.status())

    def status(self) -> dict[str, Any]:
        """The status document of a pool; empty while it does not answer."""
        assert self.runtime_dir is not None
        try:
            document: dict[str, Any] = json.loads(control_client.status(self.runtime_dir))
        except PoolError:
            return {}
        return document

    def workers(self, model: str = "") -> list[dict[str, Any]]:
        """The workers, of one model or of all, with `model`, `version` and `servable_state`."""
        return workers_of(self.status(), model)

    def pids(self) -> list[int]:
        return bench_memory.marked_processes(self.mark)

    def memory(self) -> list[Memory]:
        """Of each process."""
        return bench_memory.measure(self.pids(), self.roles())

    def _log_tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3000:]

    def _answers(self) -> bool:
        """Whether a call succeeds; a new channel each time, for a channel waits a second after a failed connect."""
        if not self.listens():
            return False
        tiny = bench_workloads.WORKLOADS["tiny"]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                return tiny.is_right_message(channel.unary_unary(tiny.path)(tiny.request(), timeout=10))
            except grpc.RpcError:
                return False


def workers_of(status: Mapping[str, Any], model: str = "") -> list[dict[str, Any]]:
    return [
        {**worker, "model": each["name"], "version": version["version"], "servable_state": version["state"]}
        for each in status.get("models", ())
        if model in ("", each["name"])
        for version in each["versions"]
        for worker in version["workers"]
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def model_config(models: Mapping[str, Path]) -> str:
    """The ModelServerConfig, in text format, of base paths by name."""
    entries = [
        f'  config {{ name: "{name}" base_path: {json.dumps(str(path))} model_platform: "tensorflow" }}\n'
        for name, path in models.items()
    ]
    return "model_config_list {\n" + "".join(entries) + "}\n"


def pool_of(scratch: Path, models: Mapping[str, Path], pool_file: str = "", *flags: str, name: str = "pool") -> Server:
    """A pool of base paths by name, with the text of its own settings. New versions are looked for each second."""
    port, rest_port = free_port(), free_port()
    config, settings = scratch / f"models-{port}.config", scratch / f"pool-{port}.toml"
    config.write_text(model_config(models), encoding="utf-8")
    settings.write_text(pool_file, encoding="utf-8")
    what = [f"--model_config_file={config}", f"--pool_config_file={settings}", *flags]
    return pool(scratch, port, rest_port, what, name)


def pool(scratch: Path, port: int, rest_port: int, what: list[str], name: str = "pool") -> Server:
    """A pool on these ports with the flags that say what it serves."""
    modelpool = Path(sys.executable).parent / "modelpool"
    runtime_dir = scratch / f"run-{port}"
    flags = [f"--port={port}", f"--rest_api_port={rest_port}", f"--runtime_dir={runtime_dir}"]
    log = scratch / f"pool-{port}.log"
    return Server(name, port, [str(modelpool), "serve", *flags, *what], log, runtime_dir, rest_port)


def plain_of(scratch: Path, versions: Mapping[str, Path]) -> Server:
    """The plain server of version directories by name."""
    port = free_port()
    models = [f"{name}={path}" for name, path in versions.items()]
    command = [sys.executable, str(SCRIPTS / "bench_plain_server.py"), str(port), *models]
    return Server("plain", port, command, scratch / f"plain-{port}.log")
