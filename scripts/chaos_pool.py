"""A pool of a chaos scene: started, hurt by pid, looked at from outside, ended. Knows nothing of the scenes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bench_memory
import bench_server
import child_process

from modelpool.supervisor.control_client import ControlClient
from modelpool.supervisor.wire.client_messages import StatusReply, StatusRequest
from modelpool.supervisor.wire.status import PoolError

SCRIPTS = Path(__file__).resolve().parent
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
_POLL_S = 0.01


class ChaosPool:
    """Serves models, by their base paths, from the start of the `with` block to its end.

    `before_exec` runs in the new process before it becomes the server: for limits that it is to live under.
    """

    def __init__(
        self,
        scratch: Path,
        models: Mapping[str, Path],
        pool_file: str = "",
        flags: Sequence[str] = (),
        *,
        runtime_dir: Path | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> None:
        self.port, self.rest_port = bench_server.free_port(), bench_server.free_port()
        self.runtime_dir = runtime_dir or scratch / f"run-{self.port}"
        self.log = scratch / f"pool-{self.port}.log"
        self.crash_dir = scratch / f"crashes-{self.port}"
        self._open = contextlib.ExitStack()
        self._control: ControlClient | None = None
        self._models = tuple(models)
        self._mark = uuid.uuid4().hex
        self._before_exec = before_exec
        config, settings = scratch / f"models-{self.port}.config", scratch / f"pool-{self.port}.toml"
        config.write_text(bench_server.model_config(models), encoding="utf-8")
        settings.write_text(pool_file, encoding="utf-8")
        self._command = [str(Path(sys.executable).parent / "modelpool"), "serve", f"--port={self.port}"]
        self._command += [f"--rest_api_port={self.rest_port}", f"--runtime_dir={self.runtime_dir}"]
        self._command += [f"--crash_dir={self.crash_dir}"]
        self._command += [f"--model_config_file={config}", f"--pool_config_file={settings}", *flags]

    def __enter__(self) -> Self:
        # The operation of one of the models is a Python module of this folder.
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), bench_memory.MARK: self._mark}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=self._before_exec,  # noqa: PLW1509 - no thread of ours runs yet
            )
        try:
            self.until(self._is_up, START_WITHIN_S, "the pool serves")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is not None:
            print(f"-- the end of {self.log}\n{self.log.read_text('utf-8', 'replace')[-4000:]}", file=sys.stderr)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def status(self) -> dict[str, Any]:
        """The status document; empty while the pool does not answer."""
        if self._control is None:
            self._control = self._open.enter_context(ControlClient(self.runtime_dir))
        try:
            document: dict[str, Any] = json.loads(self._control.ask(StatusRequest, StatusReply).body)
        except PoolError:
            return {}
        return document

    def worker(self, model: str) -> dict[str, Any]:
        """The worker of a model of one version; while one replaces another that serves still, the new one."""
        return max(self.workers(model), key=lambda worker: worker["incarnation"] or 0)

    def workers(self, model: str) -> list[dict[str, Any]]:
        return bench_server.workers_of(self.status(), model)

    def frontends(self) -> list[int]:
        return [each["pid"] for each in self.status()["frontends"]]

    def crash_reports(self, model: str) -> list[dict[str, Any]]:
        """Of the workers of a model, the oldest first."""
        reports = [json.loads(path.read_text()) for path in sorted(self.crash_dir.glob("*.json"))]
        return [report for report in reports if report["model"] == model]

    def cause(self, incarnation: int) -> str:
        """How a worker that is gone has ended, by the log: the status forgets one that was replaced."""
        log = self.log.read_text("utf-8", "replace")
        found = re.search(rf"worker gone .* incarnation={incarnation} .* cause=('.*?'|\S+)", log)
        return found[1] if found else ""

    def serving_worker(self, model: str, for_s: float = 0.0) -> dict[str, Any]:
        """The worker of a model once it has served for so long."""

        def ready() -> Any:
            worker = self.worker(model)
            return worker if worker["state"] == "ready" and worker["state_s"] >= for_s else None

        worker: dict[str, Any] = self.until(ready, 60.0, f"{model} ready")
        return worker

    def kill_worker(self, model: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Signal the worker of a model that serves; its incarnation."""
        worker = self.serving_worker(model)
        os.kill(worker["pid"], how)
        incarnation: int = worker["incarnation"]
        return incarnation

    def wait_replaced(self, model: str, incarnation: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """The worker of the model once it is a later one than `incarnation`, serves, and is the only one."""

        def later() -> Any:
            workers = self.workers(model)
            found = [each for each in workers if (each["incarnation"] or 0) > incarnation and each["state"] == "ready"]
            return found[0] if found and len(workers) == 1 else None

        worker: dict[str, Any] = self.until(later, timeout_s, f"{model} is back")
        return worker

    def until(self, probe: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """The first true value of `probe`. Raises BrokenPromise when none comes in time, or the pool has ended."""
        ends_s = time.monotonic() + timeout_s
        while not (value := probe()):
            if self.process.poll() is not None:
                raise BrokenPromise(f"the pool ended with {self.process.returncode} before {what}")
            if time.monotonic() > ends_s:
                raise BrokenPromise(f"not within {timeout_s:g} s: {what}")
            time.sleep(_POLL_S)
        return value

    def stop(self) -> int:
        """End it in order; the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_WITHIN_S)

    def pids(self) -> list[int]:
        """Every process of it that lives, whoever its parent is."""
        return bench_memory.marked_processes(self._mark)

    def _is_up(self) -> bool:
        status = self.status()
        states = {each["model"]: each["servable_state"] for each in bench_server.workers_of(status)}
        up = all(states.get(model) == "AVAILABLE" for model in self._models)
        return up and bool(status["supervisor"]["serving"])

    def _end(self) -> None:
        self._control = None
        self._open.close()
        child_process.end(self.process, STOP_WITHIN_S)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


class BrokenPromise(Exception):
    """Something that must come did not."""
