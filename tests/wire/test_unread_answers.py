"""A gRPC client that asks for big answers and reads none, at a real frontend in Envoy: few may wait for it."""

import socket
import struct

import grpc
import pytest
from bench_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame

from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute

from .conftest import WAIT_S, Stage, eventually, resident_mb, version
from .test_frontend_requests import predict, request
from .test_odd_heads import USUAL, literal

CALLS, ANSWER_MB, MOST_HEAP_MB = 400, 1, 100


def test_answers_that_nobody_reads(stage: Stage) -> None:
    if stage.engine is Engine.GRPCIO:
        pytest.skip("grpc.aio keeps all of them")
    owner = stage.frontend(most_heap_bytes=MOST_HEAP_MB << 20)
    owner.open_ports()
    big, small = stage.worker("b" * (ANSWER_MB << 20)), stage.worker("small")
    owner.route(ModelRoute("big", (version(1, big),), {}), ModelRoute("m", (version(1, small),), {}))
    asked = request("big")
    head = b"".join(literal(name, value) for name, value in USUAL.items())
    message = struct.pack(">BI", 0, len(asked)) + asked
    before_mb = resident_mb(owner.process.pid)
    with socket.create_connection(("127.0.0.1", owner.spec.grpc_port), timeout=WAIT_S) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for number in range(CALLS):
            stream = 2 * number + 1
            connection.sendall(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message))
        eventually(lambda: len(big.seen) == CALLS, "all calls")
        with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
            assert predict(channel, request()) == b"small:" + request()
        most_mb = before_mb + 1.5 * MOST_HEAP_MB
        eventually(lambda: resident_mb(owner.process.pid) < most_mb, f"less than {most_mb} of {CALLS * ANSWER_MB} MB")
        assert owner.process.poll() is None
