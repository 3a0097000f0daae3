"""Frames of HTTP/2 of more than 16 KiB, which the server has to allow: a message in one is taken as any other."""

import socket
import struct

from bench_http2 import HEADERS, MAX_FRAME_SIZE, SETTINGS, Http2

from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, Stage, version
from .test_frontend_requests import request

PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEAD = struct.Struct(">IBI")


def first_settings(connection: socket.socket) -> tuple[bytes, dict[int, int]]:
    """What the server says first, as it came, and what it allows."""
    said = b""
    while len(said) < HEAD.size or len(said) < HEAD.size + (HEAD.unpack_from(said)[0] >> 8):
        said += connection.recv(4096)
    word, flags, _ = HEAD.unpack_from(said)
    assert (word & 255, flags) == (SETTINGS, 0)
    return said, dict(struct.iter_unpack(">HI", said[HEAD.size : HEAD.size + (word >> 8)]))


def send(client: Http2, connection: socket.socket) -> list[tuple[int, int]]:
    """What the client has to say; kind and size of its frames."""
    raw = b"".join(bytes(piece) for piece in client.out)
    client.out.clear()
    connection.sendall(raw)
    found, at = [], 0
    while at < len(raw):
        word, _, _ = HEAD.unpack_from(raw, at)
        found.append((word & 255, word >> 8))
        at += HEAD.size + (word >> 8)
    return found


def test_a_message_of_one_frame(stage: Stage) -> None:
    payload = request(tail=bytes(900_000))
    owner = stage.frontend()
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    address = ("127.0.0.1", owner.spec.grpc_port)
    client = Http2("server", PREDICT, payload)
    with socket.create_connection(address, timeout=WAIT_S) as connection:
        connection.sendall(b"".join(bytes(piece) for piece in client.out))
        client.out.clear()
        said, allowed = first_settings(connection)
        if stage.engine is Engine.ENVOY:
            assert allowed[MAX_FRAME_SIZE] == 1 << 20
        assert client.receive(said) == []
        send(client, connection)
        stream = client.ask()
        sent = send(client, connection)
        if stage.engine is Engine.ENVOY:
            assert sent == [(HEADERS, sent[0][1]), (0, len(payload) + 5)]
        finished: list[tuple[int, bytes | None]] = []
        while not finished:
            finished = client.receive(connection.recv(1 << 20))
            send(client, connection)
    reply = b"echo:" + payload
    assert finished == [(stream, struct.pack(">BI", 0, len(reply)) + reply)]
