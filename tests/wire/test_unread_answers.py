"""A gRPC client that asks for big answers and reads none, at a real frontend in Envoy: few may wait for it."""

import socket
import struct

import grpc
import pytest
from bench_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame

from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, Stage, eventually, resident_mb, version
from .test_frontend_requests import predict, request
from .test_odd_heads import HEAD, USUAL, literal

CALLS, ANSWER_MB, MOST_HEAP_MB = 400, 1, 100
# With so many gone, what all others have is less than half as much again as there may be, come or not.
GONE = CALLS - int(1.5 * MOST_HEAP_MB / ANSWER_MB)
INTERNAL_ERROR = 2  # RFC 9113, 7: gRPC's clients call it INTERNAL


class Deaf:
    """A client that never gives any credit for what it was sent, so that of all answers 64 KiB come; resets do."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._raw = b""
        self.resets: list[int] = []
        """Their codes."""

    def ask(self, asked: bytes) -> None:
        head = b"".join(literal(name, value) for name, value in USUAL.items())
        message = struct.pack(">BI", 0, len(asked)) + asked
        self._connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for stream in range(1, 2 * CALLS, 2):
            self._connection.sendall(
                frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message)
            )

    def look(self) -> None:
        """Wait for a moment for what comes."""
        self._connection.settimeout(0.01)
        try:
            self._raw += self._connection.recv(1 << 16)
        except TimeoutError:
            return
        raw = self._raw
        while len(raw) >= HEAD.size and len(raw) >= (size := HEAD.size + (HEAD.unpack_from(raw)[0] >> 8)):
            if HEAD.unpack_from(raw)[0] & 255 == RST_STREAM:
                self.resets.append(int.from_bytes(raw[HEAD.size : size]))
            raw = raw[size:]
        self._raw = raw


def test_answers_that_nobody_reads(stage: Stage) -> None:
    if stage.engine is Engine.GRPCIO:
        pytest.skip("grpc.aio keeps all of them")
    owner = stage.frontend(most_heap_bytes=MOST_HEAP_MB << 20)
    owner.open_ports()
    big, small = stage.worker("b" * (ANSWER_MB << 20)), stage.worker("small")
    owner.route(ModelRoute("big", (version(1, big),), {}), ModelRoute("m", (version(1, small),), {}))
    before_mb = resident_mb(owner.process.pid)
    with (
        socket.create_connection(("127.0.0.1", owner.spec.grpc_port), timeout=WAIT_S) as connection,
        grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel,
    ):
        client = Deaf(connection)
        client.ask(request("big"))

        def gone() -> bool:
            client.look()
            assert predict(channel, request()) == b"small:" + request()  # who reads is hurt by none of it
            return len(client.resets) >= GONE

        eventually(gone, f"{GONE} resets")
        most_mb = before_mb + 1.5 * MOST_HEAP_MB
        eventually(lambda: resident_mb(owner.process.pid) < most_mb, f"less than {most_mb} of {CALLS * ANSWER_MB} MB")
        eventually(lambda: len(big.seen) == CALLS, "all calls")
        assert set(client.resets) == {INTERNAL_ERROR}
        assert owner.process.poll() is None
