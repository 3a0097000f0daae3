"""HandleReloadConfigRequest through a real frontend; a fake supervisor gets the bytes and gives the answer."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.client_messages import StatusReply
from modelpool.supervisor.wire.frontend_messages import DrainFrontend, ReloadReply, ReloadRequest
from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, Stage

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


def request(*metric_names: str) -> bytes:
    message = ReloadConfigRequest(metric_names=metric_names)
    message.config.model_config_list.config.add(name="m", base_path="/models/m")
    raw: bytes = message.SerializeToString()
    return raw


def ask(channel: grpc.Channel, payload: bytes, timeout: float | None = WAIT_S) -> Any:
    return channel.unary_unary(RELOAD).future(payload, timeout=timeout)


def refusal(call: Any) -> tuple[str, str]:
    error = call.exception(WAIT_S)
    assert isinstance(error, grpc.RpcError)
    return error.code().name, error.details()


def test_ok_when_the_supervisor_says_so(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    call = ask(channel, request("/a", "/b", "/a"))
    question = frontend.expect(ReloadRequest)
    assert question.request == request("/a", "/b", "/a")
    frontend.send(ReloadReply(question.token + 100, Code.INTERNAL, "not asked for"))
    frontend.send(StatusReply(question.token, b"an answer to another kind of question"))
    frontend.send(ReloadReply(question.token, Code.OK, ""))
    frontend.send(ReloadReply(question.token, Code.INTERNAL, "twice"))
    reply = ReloadConfigResponse.FromString(call.result(WAIT_S))
    assert reply.HasField("status")
    assert (reply.status.error_code, reply.status.error_message) == (0, "")
    assert [(each.name, each.int64_value_increase) for each in reply.metric] == [("/a", 0), ("/b", 0)]
    assert all(each.HasField("int64_value_increase") for each in reply.metric)


def test_an_error_is_the_rpcs_own(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    for code, text in ((Code.FAILED_PRECONDITION, "Request to assign label é"), (Code.UNKNOWN, "x" * 2000)):
        call = ask(channel, b"\xff: the supervisor judges it")
        question = frontend.expect(ReloadRequest)
        assert question.request == b"\xff: the supervisor judges it"
        frontend.send(ReloadReply(question.token, code, text))
        expected = text if len(text) < 1024 else "x" * 1012 + "...TRUNCATED"
        assert refusal(call) == (code.name, expected)


def test_several_at_once_get_their_own_answers(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    calls = {name: ask(channel, request(name)) for name in ("/a", "/b", "/c")}
    questions = [frontend.expect(ReloadRequest) for _ in calls]
    for question in reversed(questions):
        (name,) = ReloadConfigRequest.FromString(question.request).metric_names
        frontend.send(ReloadReply(question.token, Code.UNKNOWN, f"answer to {name}"))
    for name, call in calls.items():
        assert refusal(call) == ("UNKNOWN", f"answer to {name}")


def test_only_the_clients_deadline_ends_the_wait(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    """Longer than a status question may take, and an answer that comes after the deadline harms nothing."""
    call = ask(channel, request(), timeout=2.5)
    late = frontend.expect(ReloadRequest)
    assert refusal(call)[0] == "DEADLINE_EXCEEDED"
    frontend.send(ReloadReply(late.token, Code.OK, ""))
    again = ask(channel, request())
    question = frontend.expect(ReloadRequest)
    assert question.token != late.token
    frontend.send(ReloadReply(question.token, Code.OK, ""))
    assert ReloadConfigResponse.FromString(again.result(WAIT_S)).status.error_code == 0
    assert b"Traceback" not in frontend.log


def test_a_client_that_goes_away_is_forgotten(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    call = ask(channel, request(), timeout=None)
    gone = frontend.expect(ReloadRequest)
    call.cancel()
    frontend.send(ReloadReply(gone.token, Code.OK, ""))
    frontend.route()
    assert b"Traceback" not in frontend.log


def test_a_drain_does_not_wait_for_the_supervisors_answer(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    call = ask(channel, request(), timeout=None)
    frontend.expect(ReloadRequest)
    start = time.monotonic()
    frontend.send(DrainFrontend(60.0))
    assert refusal(call) == (
        "UNAVAILABLE",
        "The server is shutting down; the reload may not have been carried out",
    )
    assert frontend.wait_exit() == 0
    assert time.monotonic() - start < WAIT_S
    assert b"Traceback" not in frontend.log


@pytest.fixture
def roomy(stage: Stage) -> Iterator[tuple[FakeFrontendOwner, grpc.Channel]]:
    """A frontend that takes requests of 32 MiB, and a channel to it."""
    owner = stage.frontend(max_request_bytes=32 << 20)
    owner.open_ports()
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        yield owner, channel


def test_a_request_that_is_too_big_never_reaches_the_supervisor(
    roomy: tuple[FakeFrontendOwner, grpc.Channel],
) -> None:
    frontend, channel = roomy
    call = ask(channel, b"\0" * ((16 << 20) + 1))
    assert refusal(call) == (
        "RESOURCE_EXHAUSTED",
        "ReloadConfigRequest: expected at most 16777216 bytes, got 16777217",
    )
    frontend.route()
    assert not any(isinstance(message, ReloadRequest) for message in frontend.receive())
