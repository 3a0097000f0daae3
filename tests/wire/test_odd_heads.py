"""Heads of HTTP/2 requests that no gRPC client sends: who sends one is answered or reset, and nobody else is hurt."""

import socket
import struct

import grpc
import pytest
from bench_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame

from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, FakeFrontendOwner, Stage, version
from .test_frames import PREDICT
from .test_frontend_requests import request

HEAD = struct.Struct(">IBI")
STREAM = 1
USUAL = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": PREDICT.encode(),
    b":authority": b"server",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}
ODD = {
    "no message": {},
    "another method": {b":method": b"GET"},
    "a path that is no UTF-8": {b":path": b"/\xff"},
    "a path that ends within a character": {b":path": PREDICT.encode() + b"\xc3"},
    "a query that is no UTF-8": {b":path": PREDICT.encode() + b"?\xff"},
    "a method that is no UTF-8": {b":method": b"\xff"},
    "a scheme that is no UTF-8": {b":scheme": b"\xff"},
    "an authority that is no UTF-8": {b":authority": b"\xff"},
    "a header that is no UTF-8": {b"x-odd": b"\xff"},
    "another content type": {b"content-type": b"text/plain"},
    "no content type": {b"content-type": b""},
    "a tunnel": {b":method": b"CONNECT"},
    "all paths": {b":method": b"OPTIONS", b":path": b"*"},
    "no path": {b":path": b""},
    "no method": {b":method": b""},
    "an upgrade": {b"connection": b"upgrade", b"upgrade": b"websocket"},
    "a protocol": {b":method": b"CONNECT", b":protocol": b"websocket"},
    "a timeout that is no UTF-8": {b"grpc-timeout": b"\xff"},
    "an encoding that is no UTF-8": {b"grpc-encoding": b"\xff"},
}


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is put into no table (RFC 7541, 6.2.2)."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def send(owner: FakeFrontendOwner, odd: dict[bytes, bytes], message: bytes | None) -> None:
    """Ask so once, and wait until the stream, or its connection, ends."""
    head = b"".join(literal(name, value) for name, value in (USUAL | odd).items() if value)
    out = PREFACE + frame(SETTINGS, 0, 0)
    out += frame(HEADERS, END_HEADERS | (END_STREAM if message is None else 0), STREAM, head)
    if message is not None:
        out += frame(DATA, END_STREAM, STREAM, message)
    with socket.create_connection(("127.0.0.1", owner.spec.grpc_port), timeout=WAIT_S) as connection:
        connection.sendall(out)
        raw = b""
        while got := connection.recv(1 << 16):
            raw += got
            while len(raw) >= HEAD.size and len(raw) >= HEAD.size + (HEAD.unpack_from(raw)[0] >> 8):
                word, flags, stream = HEAD.unpack_from(raw)
                kind = word & 255
                if stream == STREAM and (kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)):
                    return
                raw = raw[HEAD.size + (word >> 8) :]


@pytest.fixture
def owner(stage: Stage) -> FakeFrontendOwner:
    owner = stage.frontend()
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    return owner


def answer(owner: FakeFrontendOwner) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        reply: bytes = channel.unary_unary(PREDICT)(request(), timeout=WAIT_S)
    return reply


@pytest.mark.parametrize("message", [None, struct.pack(">BI", 0, len(request())) + request()], ids=["head", "whole"])
@pytest.mark.parametrize("odd", ODD)
def test_hurts_nobody(stage: Stage, owner: FakeFrontendOwner, odd: str, message: bytes | None) -> None:
    if stage.engine is Engine.GRPCIO and (message is None or not ODD[odd].get(b":path", b"").isascii()):
        pytest.skip("grpc.aio never answers the one, and ends for the other: see below")
    send(owner, ODD[odd], message)
    assert answer(owner) == b"echo:" + request()
    assert owner.process.poll() is None


@pytest.mark.grpcio_only
def test_a_server_that_grpc_ends_takes_its_process_along(owner: FakeFrontendOwner) -> None:
    """So that it is replaced: nobody could reach it any more."""
    send(owner, ODD["a path that is no UTF-8"], b"")
    assert owner.process.wait(WAIT_S) != 0
