"""The newcomer's tour: builds the demo models, starts the server, asks every model over gRPC and REST, checks.

Every call is printed as the command that a person would type, with the answer below it. Afterwards the server goes
on serving until Ctrl-C; with `--once` it stops and the exit code says whether every answer was right. Runs in the
environment that `environment.py` makes; does not import TensorFlow (the models are built by a process of their own).
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import child_process
import demo_client
import grpc

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".demo" / "models"
LOG = ROOT / ".demo" / "serve.log"
HALF_PLUS_TWO = 123
TOLERANCE = 1e-5
READY_WITHIN_S = 120
STOP_WITHIN_S = 60
STEP_S = 0.1
TELL_EVERY_S = 5


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(slots=True)
class Tour:
    """The calls: prints each with its answer and counts what was wrong."""

    host: str
    grpc_port: int
    rest_port: int
    calls: int = 0
    wrong: list[str] = field(default_factory=list)

    def grpc(
        self, model: str, inputs: dict[str, Any], wanted: dict[str, Any], *, version: int | None = None, sign: str = ""
    ) -> None:
        """Ask over gRPC by the stock client; `wanted`: the outputs."""
        words = [_shown(Path(sys.executable)), "scripts/demo_client.py", model]
        words += [f"{name}={json.dumps(value)}" for name, value in inputs.items()]
        words += [f"--version={version}"] if version is not None else []
        words += [f"--signature={sign}"] if sign else []
        words += [f"--server={self.host}:{self.grpc_port}"] if self.grpc_port != 8500 else []
        server = f"{self.host}:{self.grpc_port}"
        try:
            served_by, got = demo_client.predict(server, model, inputs, version=version, signature=sign)
        except grpc.RpcError as error:
            self._told(shlex.join(words), f"{error.code().name}: {error.details()}", right=False)
            return
        right = same(got, wanted) and version in (None, served_by)
        self._told(shlex.join(words), json.dumps({"version": served_by, "outputs": got}), right)

    def rest(self, path: str, body: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
        """Ask over HTTP: POST with a body, else GET; `wanted`: what the answer holds."""
        url = f"http://{self.host}:{self.rest_port}{path}"
        words = ["curl", *(["-d", json.dumps(body)] if body is not None else []), url]
        try:
            status, text = http_call(self.host, self.rest_port, path, body)
            answer = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._told(shlex.join(words), f"{type(error).__name__}: {error}", right=False)
            return
        self._told(shlex.join(words), " ".join(text.split()), status == 200 and same(answer, wanted))

    def _told(self, command: str, answer: str, right: bool) -> None:
        self.calls += 1
        if not right:
            self.wrong.append(command)
        print(f"\n$ {command}\n{answer}{'' if right else '    <-- WRONG'}", flush=True)


def http_call(host: str, port: int, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
    """Status and text of one HTTP request."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read().decode()


def same(got: Any, wanted: Any) -> bool:
    """Whether an answer is the wanted one: numbers nearly, everything else exactly, of objects the wanted keys."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(key in got and same(got[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(same, got, wanted))
    if isinstance(wanted, float):
        return isinstance(got, (int, float)) and math.isclose(got, wanted, abs_tol=TOLERANCE)
    return bool(got == wanted)


def ask_everything(tour: Tour) -> None:
    """Every model: over gRPC and REST, by latest and by explicit version, in row and columnar format."""
    _ask_half_plus_two(tour)
    _ask_dense(tour)
    _ask_demo(tour)


def _ask_half_plus_two(tour: Tour) -> None:
    print("\n--- half_plus_two: y = 0.5 x + 2, a TensorFlow 1 SavedModel, version 123", flush=True)
    x, y = [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]
    tour.grpc("half_plus_two", {"x": x}, {"y": y})
    tour.grpc("half_plus_two", {"x": x}, {"y": y}, version=HALF_PLUS_TWO)
    tour.rest("/v1/models/half_plus_two:predict", {"instances": x}, {"predictions": y})
    tour.rest(f"/v1/models/half_plus_two/versions/{HALF_PLUS_TWO}:predict", {"inputs": x}, {"outputs": y})
    tour.rest("/v1/models/half_plus_two", None, _available(HALF_PLUS_TWO))


def _ask_dense(tour: Tour) -> None:
    print("\n--- dense: a Keras model, versions 1 and 2 served at once", flush=True)
    expected = json.loads((MODELS / "expected.json").read_text("utf-8"))["dense"]
    rows, answers = expected["inputs"], {int(version): values for version, values in expected["answers"].items()}
    tour.grpc("dense", {"inputs": rows}, {"output_0": answers[2]})
    for version, values in sorted(answers.items()):
        tour.grpc("dense", {"inputs": rows}, {"output_0": values}, version=version)
    tour.rest("/v1/models/dense:predict", {"instances": rows}, {"predictions": answers[2]})
    tour.rest("/v1/models/dense/versions/1:predict", {"instances": rows}, {"predictions": answers[1]})
    tour.rest("/v1/models/dense/versions/1:predict", {"inputs": {"inputs": rows}}, {"outputs": answers[1]})
    tour.rest("/v1/models/dense", None, _available(2, 1))
    tour.rest("/v1/models/dense/versions/2", None, _available(2))


def _ask_demo(tour: Tour) -> None:
    print("\n--- demo: a tf.Module that keeps a string; each call must count exactly once, in order", flush=True)
    latest, first = "/v1/models/demo:predict", "/v1/models/demo/versions/1:predict"
    tour.grpc("demo", {"b": "one"}, {"output_0": "one"}, sign="test_assign")
    tour.grpc("demo", {"a": " two"}, {"output_0": "one two"}, sign="test_concat")
    tour.grpc("demo", {"a": " three"}, {"output_0": "one two three"}, version=1, sign="test_concat")
    body: dict[str, Any] = {"signature_name": "test_concat", "inputs": {"a": " four"}}
    tour.rest(latest, body, {"outputs": "one two three four"})
    body = {"signature_name": "test_assign", "inputs": {"b": {"b64": "Zml2ZQ=="}}}
    tour.rest(first, body, {"outputs": "five"})
    tour.grpc("demo", {"a": " six"}, {"output_0": "five six"}, sign="test_concat")
    tour.rest("/v1/models/demo/versions/1", None, _available(1))


def _available(*versions: int) -> dict[str, Any]:
    states = [{"version": str(v), "state": "AVAILABLE", "status": {"error_code": "OK"}} for v in versions]
    return {"model_version_status": states}


# -- the server --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a child, its words in a file; stopped and awaited at the end, whatever happened."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("wb") as log:
        # In a process group of its own, so that Ctrl-C reaches the demo alone and the server is told once.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, process_group=0
        )
    try:
        yield server
    finally:
        # A second Ctrl-C must not leave the server behind.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        child_process.end(server, STOP_WITHIN_S)
        signal.signal(signal.SIGINT, previous)


def wait_ready(server: subprocess.Popen[bytes], tour: Tour) -> None:
    """Until each of the models says AVAILABLE. Raises DemoError with the log's end when the server cannot start."""
    started, told_s = time.monotonic(), 0.0
    waiting = {"demo": 1, "dense": 2, "half_plus_two": 1}
    while waiting:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STEP_S)
            raise DemoError(f"The server ended with exit code {server.returncode}:\n{_log_tail()}")
        for name, versions in list(waiting.items()):
            if _versions_available(tour, name) == versions:
                print(f"  {time.monotonic() - started:4.1f} s  {name} is available", flush=True)
                del waiting[name]
        lasts_s = time.monotonic() - started
        if waiting and lasts_s - told_s >= TELL_EVERY_S:
            print(f"  {lasts_s:4.1f} s  waiting for {', '.join(waiting)} (TensorFlow is imported first)", flush=True)
            told_s = lasts_s
        if lasts_s > READY_WITHIN_S:
            raise DemoError(f"Not ready after {READY_WITHIN_S} s: {', '.join(waiting)}\n{_log_tail()}")


def _versions_available(tour: Tour, name: str) -> int:
    try:
        status, text = http_call(tour.host, tour.rest_port, f"/v1/models/{name}", None)
    except (OSError, http.client.HTTPException):
        return 0
    if status != 200:
        return 0
    return sum(each["state"] == "AVAILABLE" for each in json.loads(text)["model_version_status"])


def _log_tail() -> str:
    return "\n".join(LOG.read_text("utf-8", "replace").splitlines()[-20:]) + f"\n(all of it: {_shown(LOG)})"


def _shown(path: Path) -> str:
    """A path as a person in the checkout would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def show_status(modelpool: Path, port: int) -> bool:
    """Print what `modelpool status` prints; whether it could."""
    command = [str(modelpool), "status", f"--port={port}"]
    print(f"\n$ {_shown(modelpool)} status --port={port}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def run_demo(args: argparse.Namespace) -> int:
    """The whole tour; 0 when every answer was right."""
    print(f"Building the demo models in {_shown(MODELS)}/ ...", flush=True)
    built = subprocess.run([sys.executable, str(ROOT / "scripts" / "demo_models.py"), str(MODELS)], check=False)
    if built.returncode != 0:
        raise DemoError(f"The demo models could not be built (exit code {built.returncode}).")
    modelpool = Path(sys.executable).parent / "modelpool"
    flags = [f"--port={args.port}", f"--rest_api_port={args.rest_api_port}"]
    config = MODELS / "models.config"
    print("\nStarting the server; every model gets a process of its own:", flush=True)
    print(f"$ {_shown(modelpool)} serve {shlex.join(flags)} --model_config_file={_shown(config)}", flush=True)
    tour = Tour("localhost", args.port, args.rest_api_port)
    with serving([str(modelpool), "serve", *flags, f"--model_config_file={config}"]) as server:
        wait_ready(server, tour)
        ask_everything(tour)
        shown = show_status(modelpool, args.port)
        print(f"\n{tour.calls} calls, {len(tour.wrong)} wrong.", flush=True)
        if args.once:
            return 1 if tour.wrong or not shown else 0
        print(f"Serving on ports {args.port} (gRPC) and {args.rest_api_port} (REST); log in {_shown(LOG)}.")
        print("Try the commands above in another terminal. Ctrl-C ends it.", flush=True)
        code = server.wait()
        raise DemoError(f"The server ended by itself with exit code {code}:\n{_log_tail()}")


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Serve the demo models and call them all.")
    parser.add_argument("--once", action="store_true", help="end after the calls; exit code 0 if all were right")
    parser.add_argument("--port", type=int, default=8500, help="for gRPC (8500)")
    parser.add_argument("--rest_api_port", type=int, default=8501, help="for REST (8501)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    os.chdir(ROOT)
    try:
        return run_demo(args)
    except DemoError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 130 if args.once else 0


if __name__ == "__main__":
    sys.exit(main())
