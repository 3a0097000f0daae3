"""The load generator's own HTTP/2 and HTTP/1.1 against a real gRPC server and a real HTTP server."""

import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import bench_load
import grpc
import pytest
from bench_plan import Plan
from bench_workloads import Workload

ECHO = "/test.Echo/Echo"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each message with itself; `refuses`: every so many with an error."""

    def __init__(self) -> None:
        self.asked = 0
        self.metadata: dict[str, Any] = {}
        self.refuses = 0
        self.stops_s = 0.0

    def service(self, details: Any) -> Any:
        if details.method != ECHO:
            return None
        self.metadata = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(self._echo)

    def _echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        if self.refuses and self.asked % self.refuses == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if self.stops_s and self.asked == 50:
            threading.Event().wait(self.stops_s)
        return message


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    handler = Echo()
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler], options=UNLIMITED)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


def run(address: str, body: bytes, plan: Plan, answer: bytes | None = None, rest: bool = False) -> dict[str, float]:
    """The figures of a load whose every answer must be `answer`, by default the request itself."""
    wanted = body if answer is None else answer
    workload = Workload("echo", "echo", lambda: body, lambda: None, rest=rest)
    workload_path = workload.path if rest else ECHO
    peers = bench_load.connect(address, workload_path, body, rest, plan.connections)
    head = 0 if rest else 5
    load = bench_load.Load(peers, plan, lambda each: each[head:] == wanted)
    try:
        (load.run_open if plan.rate_per_s else load.run_closed)()
    finally:
        load.close()
    return load.figures(0.0)


@pytest.mark.parametrize("size", [0, 1, 16_384 - 5, 16_384, 600_000])
def test_closed_loop_counts_right_answers(echo: tuple[Echo, str], size: int) -> None:
    """Of every size, also those that need many frames and more than the server's first window."""
    handler, address = echo
    figures = run(address, bytes(size), Plan(8, 0.0, 30.0, connections=2, requests=40))
    assert figures["answers"] >= 40
    assert figures["failures"] == figures["wrong"] == 0
    assert figures["answers"] <= handler.asked <= figures["answers"] + 8
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]


def test_headers_are_those_of_a_grpc_client(echo: tuple[Echo, str]) -> None:
    """Also of later requests, which name them by their place in the server's table."""
    handler, address = echo
    run(address, b"x", Plan(1, 0.0, 30.0, connections=1, requests=5))
    assert handler.metadata == {"user-agent": "modelpool-bench"}


def test_failed_calls_are_counted_apart(echo: tuple[Echo, str]) -> None:
    handler, address = echo
    handler.refuses = 4
    figures = run(address, b"x", Plan(1, 0.0, 30.0, connections=1, requests=40))
    assert (figures["answers"], figures["failures"]) == (30, 10)


def test_wrong_answers_are_counted_apart(echo: tuple[Echo, str]) -> None:
    _, address = echo
    figures = run(address, b"x", Plan(2, 0.0, 30.0, connections=1, requests=10), answer=b"y")
    assert figures["answers"] == 0
    assert figures["wrong"] >= 10


def test_open_loop_counts_from_the_time_a_request_was_meant_to_be_sent(echo: tuple[Echo, str]) -> None:
    """The server stands still once: all who would have come meanwhile have waited, not only the one who was there."""
    handler, address = echo
    handler.stops_s = 0.4
    figures = run(address, b"x", Plan(1, 0.0, 1.0, connections=1, rate_per_s=200, arrivals="constant"))
    assert figures["answers"] == handler.asked == 200
    assert figures["max_us"] >= 400_000
    assert figures["p90_us"] >= 150_000  # 80 of 200 came while it stood still, and waited for 400 ms down to none


def test_what_could_not_be_sent_any_more_is_a_failure(poster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection of HTTP/1.1 has one request at a time, and the server stands still with the first."""
    monkeypatch.setattr(bench_load, "_LAST_ANSWERS_S", 0.2)
    figures = run(poster, b"stays", Plan(1, 0.0, 0.2, connections=1, rate_per_s=100, arrivals="constant"), rest=True)
    assert (figures["answers"], figures["failures"]) == (0, 20)


class _Poster(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"stays":
            self.rfile.read(1)  # until the client goes
        self.send_response(200 if body != b"bad" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _PostServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The load ends with requests on their way."""


@pytest.fixture
def poster() -> Iterator[str]:
    server = _PostServer(("127.0.0.1", 0), _Poster)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_rest_answers(poster: str, size: int) -> None:
    figures = run(poster, b"x" * size, Plan(3, 0.0, 30.0, connections=3, requests=20), rest=True)
    assert figures["answers"] >= 20
    assert figures["failures"] == figures["wrong"] == 0


def test_rest_errors_are_failures(poster: str) -> None:
    figures = run(poster, b"bad", Plan(1, 0.0, 30.0, connections=1, requests=5), rest=True)
    assert (figures["answers"], figures["failures"]) == (0, 5)
