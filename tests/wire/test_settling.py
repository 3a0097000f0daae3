"""Workers that die under a real frontend: what their requests come to, over real sockets and connections that end."""

import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.frontend_messages import Quarantined, WorkerDied
from modelpool.supervisor.wire.route_table import ModelRoute, RequestRules, RetryOnCrash, RouteTable, VersionRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, FakeWorker, Stage, eventually, version

PREDICT = "/tensorflow.serving.PredictionService/Predict"
REQUEST_M = b"\x0a\x03\x0a\x01m"
RETURNING = VersionRoute(1, ServableState.LOADING, Code.UNAVAILABLE, "killed", (), returning=True)
ONCE, NEVER = RequestRules(), RequestRules(RetryOnCrash.NEVER)


def routed(*workers: FakeWorker, rules: RequestRules = ONCE) -> ModelRoute:
    return ModelRoute("m", (version(1, *workers),), {}, rules=rules)


def numbered(number: int) -> bytes:
    """A request that differs from others by an unknown field."""
    return REQUEST_M + b"\x2a\x01" + bytes((number,))


def ask(channel: grpc.Channel, payload: bytes) -> Any:
    return channel.unary_unary(PREDICT).future(payload, timeout=WAIT_S)


def refusal(call: Any) -> tuple[str, str]:
    error = call.exception(WAIT_S)
    return error.code().name, error.details()


def died(frontend: FakeFrontendOwner, worker: FakeWorker, executing: list[int], finished: list[int]) -> None:
    """The process is gone: its connection, and then the news."""
    worker.stop()
    frontend.send(WorkerDied(worker.incarnation, "killed by SIGKILL", tuple(executing), tuple(finished)))


def test_queued_and_suspect_requests_are_answered_by_the_next_worker(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    doomed, other = stage.worker("doomed"), stage.worker("other")
    doomed.hold.set()
    frontend.route(routed(doomed), ModelRoute("n", (version(1, other),), {}))
    calls = [ask(channel, numbered(number)) for number in range(5)]
    rest = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    rest.request("POST", "/v1/models/m:predict", b"{}")
    held = eventually(lambda: doomed.held if len(doomed.held) == 6 else [], "the requests")
    suspect = held[0].header.request_id
    died(frontend, doomed, [suspect], [])
    frontend.route(ModelRoute("m", (RETURNING,), {}), ModelRoute("n", (version(1, other),), {}))
    calls.append(ask(channel, numbered(5)))
    assert ask(channel, REQUEST_M.replace(b"m", b"n")).result(WAIT_S).startswith(b"other:")
    assert not any(call.done() for call in calls)
    after = stage.worker("next")
    frontend.route(routed(after))
    assert [call.result(WAIT_S) for call in calls] == [b"next:" + numbered(number) for number in range(6)]
    reply = rest.getresponse()
    assert (reply.status, reply.read()) == (200, b"next:{}")
    rest.close()
    assert [request.header.alone for request in after.seen].count(True) == 1
    assert next(request.header.request_id for request in after.seen if request.header.alone) == suspect
    assert b"Traceback" not in frontend.log


def test_never_tells_those_that_were_executed(stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    doomed = stage.worker("doomed")
    doomed.hold.set()
    frontend.route(routed(doomed, rules=NEVER))
    calls = {}
    for number in range(3):
        calls[number] = ask(channel, numbered(number))
        eventually(lambda: len(doomed.held) == number + 1, "the request")  # noqa: B023
    ids = [request.header.request_id for request in doomed.held]
    died(frontend, doomed, [ids[1]], [ids[0]])
    begins = "The worker of model m version 1 died"
    never = '(killed by SIGKILL); it was not tried again: retry_on_crash is "never"'
    lost = f"{begins} when it had executed this request, before the answer came {never}"
    assert refusal(calls[0]) == ("UNAVAILABLE", lost)
    assert refusal(calls[1]) == ("UNAVAILABLE", f"{begins} while it executed this request {never}")
    frontend.route(routed(stage.worker("next"), rules=NEVER))
    assert calls[2].result(WAIT_S) == b"next:" + numbered(2)


def test_answers_that_a_dead_worker_had_written_are_not_lost(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    doomed = stage.worker("doomed")
    doomed.hold.set()
    frontend.route(routed(doomed, rules=NEVER))
    calls = [ask(channel, numbered(number)) for number in range(100)]
    held = eventually(lambda: doomed.held if len(doomed.held) == 100 else [], "the requests")
    ids = [request.header.request_id for request in held]
    os.kill(frontend.process.pid, signal.SIGSTOP)
    eventually(lambda: "T (stopped)" in Path(f"/proc/{frontend.process.pid}/status").read_text(), "it stands still")
    doomed.release()
    eventually(lambda: not doomed.held, "the answers have left")
    died(frontend, doomed, [], ids)
    os.kill(frontend.process.pid, signal.SIGCONT)
    assert [call.result(WAIT_S)[:7] for call in calls] == [b"doomed:"] * 100


def test_a_poison_request_is_told_to_the_supervisor_and_refused_everywhere(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel, tmp_path: Path
) -> None:
    folder = tmp_path / "poison"
    rules = RequestRules(poison_dir=str(folder))
    workers = [stage.worker(name) for name in ("first", "second", "third")]
    for worker in workers[:2]:
        worker.hold.set()
    frontend.route(routed(workers[0], rules=rules))
    call = ask(channel, REQUEST_M)
    for number in range(2):
        held = eventually(lambda: workers[number].held, "the request")  # noqa: B023
        assert held[0].header.alone == bool(number)
        died(frontend, workers[number], [held[0].header.request_id], [])
        frontend.route(routed(workers[number + 1], rules=rules))
    poison = (
        "The worker of model m version 1 died while it executed this request (killed by SIGKILL), and so did another "
        "when the request was tried once more, alone; it is refused as poison"
    )
    assert refusal(call) == ("FAILED_PRECONDITION", poison)
    entry = frontend.expect(Quarantined)
    assert (entry.name, entry.version, entry.size_bytes) == ("m", 1, len(REQUEST_M))
    name = f"m-1-predict-{entry.fingerprint.hex()}.poison"
    eventually(lambda: folder.is_dir() and [path.name for path in folder.iterdir()] == [name], "it is kept")
    assert (folder / name).read_bytes() == REQUEST_M
    second = stage.frontend()
    second.send(entry)
    second.route(routed(workers[2], rules=rules))
    second.open_ports()
    with grpc.insecure_channel(f"127.0.0.1:{second.spec.grpc_port}") as other:
        for each in (channel, other):
            code, text = refusal(ask(each, REQUEST_M))
            assert code == "FAILED_PRECONDITION"
            assert text.startswith("This request is the same as one that killed two workers of model m version 1")
            assert ask(each, numbered(1)).result(WAIT_S) == b"third:" + numbered(1)
    eventually(lambda: b"poison request servable=m/1 method=PREDICT" in frontend.log, "the log line")


@pytest.mark.parametrize("by", ["queue", "worker"])
def test_refusals_say_when_to_ask_again(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel, by: str
) -> None:
    worker = stage.worker()
    rules = RequestRules(max_queued_requests=1)
    frontend.route(routed(worker, rules=rules))
    if by == "queue":
        worker.hold.set()
        busy = ask(channel, REQUEST_M)
        eventually(lambda: worker.held, "the request")
    else:
        worker.error, worker.retry_after_ms = (Code.UNAVAILABLE, b"full"), 1500
    error = ask(channel, REQUEST_M).exception(WAIT_S)
    trailing = dict(error.trailing_metadata())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    connection = http.client.HTTPConnection("127.0.0.1", frontend.spec.rest_port, timeout=WAIT_S)
    connection.request("POST", "/v1/models/m:predict", b"{}")
    reply = connection.getresponse()
    assert reply.status == 503
    assert "full" in json.loads(reply.read())["error"]
    connection.close()
    if by == "queue":
        assert int(trailing["grpc-retry-pushback-ms"]) > 0
        assert reply.headers["Retry-After"] == trailing["retry-after"] == "1"
        worker.release()
        assert busy.result(WAIT_S) == b"echo:" + REQUEST_M
    else:
        assert trailing["grpc-retry-pushback-ms"] == "1500"
        assert reply.headers["Retry-After"] == trailing["retry-after"] == "2"


def test_a_version_that_is_given_up_answers_those_who_wait(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    doomed = stage.worker("doomed")
    doomed.hold.set()
    frontend.route(routed(doomed))
    call = ask(channel, REQUEST_M)
    eventually(lambda: doomed.held, "the request")
    died(frontend, doomed, [], [])
    frontend.send(RouteTable(frontend.epoch, ()))  # old: says nothing
    frontend.route(ModelRoute("m", (VersionRoute(1, ServableState.END, Code.UNAVAILABLE, "too many deaths", ()),), {}))
    text = "The worker of model m version 1 died, and none takes its place: too many deaths"
    assert refusal(call) == ("UNAVAILABLE", text)
