"""Slow senders at a real frontend: they take nothing from others for longer than a moment, whatever they do."""

import contextlib
import http.client
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from slow_calls import PREDICT, SlowCalls

from modelpool.frontend.model_queue import FULL
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.protos import GetModelStatusRequest, GetModelStatusResponse
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, version

T = TypeVar("T")
MOST = 3
# Who sends nothing has a place for so long, whoever wants it.
LET_BE_S = 5.0
# Nobody who sends nothing has a place for longer than some seconds while others want it.
MADE_ROOM_S = 20.0
REQUEST: bytes = GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()
# With a field that nobody knows, which packs well: one that does not is sent as it is.
PACKS_WELL = REQUEST + b"\x7a\xd0\x0f" + bytes(2000)
GET_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
REST_HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"


def crowded(stage: Stage) -> FakeFrontendOwner:
    owner = stage.frontend(arriving_requests=MOST)
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    return owner


def post(owner: FakeFrontendOwner, body: bytes) -> tuple[int, bytes, str | None]:
    """Status, body and hint."""
    connection = http.client.HTTPConnection("localhost", owner.spec.rest_port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/models/m:predict", body)
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.getheader("Retry-After")


def while_let_be(begin: Callable[[], None], probe: Callable[[], T | None]) -> T | None:
    """Begin slow requests, and ask `probe` for as long as they are let be: what it says, if it says anything then.

    None also where this process stood still for that long, so that all that has begun must be begun again.
    """
    ends_s = time.monotonic() + LET_BE_S
    begin()
    while time.monotonic() < ends_s:
        if (value := probe()) is not None:
            return value
    return None


def test_slow_bodies_over_rest(stage: Stage) -> None:
    owner = crowded(stage)
    with contextlib.ExitStack() as stack:
        slow: list[socket.socket] = []

        def begin() -> None:
            for _ in range(MOST):
                slow.append(stack.enter_context(socket.create_connection(("localhost", owner.spec.rest_port))))
                slow[-1].sendall(REST_HEAD)

        def refused() -> tuple[int, bytes, str | None] | None:
            reply = post(owner, b"{}")
            return reply if reply[0] != 200 else None

        status, body, hint = eventually(lambda: while_let_be(begin, refused), "the places are taken")
        assert (status, hint) == (503, "1")
        assert FULL.encode() in body
        eventually(lambda: post(owner, b"{}") == (200, b"echo:{}", None), "a slow one gives way", MADE_ROOM_S)
        answers = dict.fromkeys(slow, b"")

        def gave_way() -> bytes | None:
            """The answer to the first that was told so."""
            for connection in select.select(slow, [], [], 0)[0]:
                with contextlib.suppress(ConnectionError):  # of one that was refused and is closed
                    answers[connection] += connection.recv(4096)
            return next((answer for answer in answers.values() if b"too slowly, 1 bytes" in answer), None)

        assert eventually(gave_way, "a slow one is told why").startswith(b"HTTP/1.1 503 ")
    assert post(owner, b"{}") == (200, b"echo:{}", None)


@pytest.fixture
def envoy_stage() -> Iterator[Stage]:
    """grpcio takes messages in by itself; what a frontend has to do with them is Envoy's alone."""
    folder = Path(tempfile.mkdtemp(prefix="mp"))
    stage = Stage(folder, Engine.ENVOY)
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("headers_only", [False, True])
def test_slow_messages_over_grpc(envoy_stage: Stage, headers_only: bool) -> None:
    owner = crowded(envoy_stage)
    port = owner.spec.grpc_port
    slow: list[SlowCalls] = []
    with contextlib.ExitStack() as stack, grpc.insecure_channel(f"localhost:{port}") as channel:
        call = channel.unary_unary(PREDICT)

        def packed() -> grpc.RpcError | bytes:
            """One that goes the slow way."""
            try:
                reply: bytes = call(PACKS_WELL, timeout=WAIT_S, compression=grpc.Compression.Gzip)
            except grpc.RpcError as error:
                return error
            return reply

        def refused() -> grpc.RpcError | None:
            answer = packed()
            return answer if isinstance(answer, grpc.RpcError) else None

        def begin() -> None:
            slow.append(stack.enter_context(SlowCalls(port, MOST, WAIT_S, headers_only=headers_only)))

        error = eventually(lambda: while_let_be(begin, refused), "the places are taken")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details().startswith(FULL)
        assert dict(error.trailing_metadata())["retry-after"] == "1"
        assert call(REQUEST, timeout=WAIT_S) == b"echo:" + REQUEST, "a message that comes at once needs no place"
        status = channel.unary_unary(GET_STATUS)(REQUEST, timeout=WAIT_S)
        assert GetModelStatusResponse.FromString(status).model_version_status, "nor does one that asks no model"
        eventually(lambda: packed() == b"echo:" + PACKS_WELL, "a slow one gives way", MADE_ROOM_S)
        for calls in slow:
            calls.wait_ended()  # they gave way, or were refused themselves
