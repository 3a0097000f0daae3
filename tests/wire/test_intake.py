"""Slow senders at a real frontend: they take nothing from others for longer than a moment, whatever they do."""

import contextlib
import http.client
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from slow_calls import PREDICT, SlowCalls

from modelpool.frontend.model_queue import FULL
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, version

MOST = 3
# Nobody who sends nothing has a place for longer than some seconds while others want it.
MADE_ROOM_S = 20.0
REQUEST: bytes = GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()
# With a field that nobody knows, which packs well: one that does not is sent as it is.
PACKS_WELL = REQUEST + b"\x7a\xd0\x0f" + bytes(2000)
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


def test_slow_bodies_over_rest(stage: Stage) -> None:
    owner = crowded(stage)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("localhost", owner.spec.rest_port))) for _ in range(MOST)]
        for connection in slow:
            connection.settimeout(WAIT_S)
            connection.sendall(REST_HEAD)
        status, body, hint = eventually(lambda: _refused(post(owner, b"{}")), "the places are taken")
        assert (status, hint) == (503, "1")
        assert FULL.encode() in body
        eventually(lambda: post(owner, b"{}") == (200, b"echo:{}", None), "a slow one gives way", MADE_ROOM_S)
        (gave_way, *_), _, _ = select.select(slow, [], [], WAIT_S)
        answer = b""
        while b"too slowly, 1 bytes" not in answer:
            answer += (part := gave_way.recv(4096))
            assert part, answer
        assert answer.startswith(b"HTTP/1.1 503 ")
    assert post(owner, b"{}") == (200, b"echo:{}", None)


def _refused(reply: tuple[int, bytes, str | None]) -> tuple[int, bytes, str | None] | None:
    return reply if reply[0] != 200 else None


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


def test_slow_messages_over_grpc(envoy_stage: Stage) -> None:
    owner = crowded(envoy_stage)
    port = owner.spec.grpc_port
    with SlowCalls(port, MOST, WAIT_S) as slow, grpc.insecure_channel(f"localhost:{port}") as channel:
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

        error = eventually(refused, "the places are taken")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details().startswith(FULL)
        assert dict(error.trailing_metadata())["retry-after"] == "1"
        assert call(REQUEST, timeout=WAIT_S) == b"echo:" + REQUEST, "a message that comes at once needs no place"
        began_s = time.monotonic()
        eventually(lambda: packed() == b"echo:" + PACKS_WELL, "a slow one gives way", MADE_ROOM_S)
        assert time.monotonic() - began_s < MADE_ROOM_S
        slow.wait_ended()
