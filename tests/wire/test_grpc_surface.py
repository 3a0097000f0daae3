"""The gRPC surface beside Predict: the other RPCs, channel arguments, compression."""

import contextlib
import socket
import threading
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import get_model_metadata_pb2, inference_pb2, predict_pb2

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, FakeWorker, Stage, eventually, version
from .test_frontend_requests import refusal, request

PREDICTION = "/tensorflow.serving.PredictionService/"


def multi_inference(*names: str | None) -> bytes:
    """A MultiInferenceRequest with a task for each name; None: a task without model_spec."""
    message = inference_pb2.MultiInferenceRequest()
    for name in names:
        task = message.tasks.add(method_name="tensorflow/serving/regress")
        if name is not None:
            task.model_spec.name = name
    message.input.example_list.examples.add()
    raw: bytes = message.SerializeToString()
    return raw


def metadata(name: str | None, *fields: str) -> bytes:
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        message.model_spec.name = name
    raw: bytes = message.SerializeToString()
    return raw


# -- RPCs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rpc",
    [
        ("Predict", Method.PREDICT, request()),
        ("Classify", Method.CLASSIFY, request()),
        ("Regress", Method.REGRESS, request()),
        ("MultiInference", Method.MULTI_INFERENCE, multi_inference("m", "other", None)),
        ("GetModelMetadata", Method.METADATA, metadata("m", "signature_def", "signature_def")),
    ],
)
def test_each_rpc_forwards_its_bytes(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel, rpc: tuple[str, Method, bytes]
) -> None:
    name, method, payload = rpc
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    worker.hold.set()
    call = channel.unary_unary(PREDICTION + name).future(payload, timeout=WAIT_S)
    (held,) = eventually(lambda: list(worker.held), "the request")
    assert held.header.method is method
    assert held.payload == payload
    worker.error = (Code.FAILED_PRECONDITION, b"e" * 2000)
    worker.release()
    assert call.exception(WAIT_S).details() == "e" * 1012 + "...TRUNCATED"
    worker.error = None
    assert channel.unary_unary(PREDICTION + name)(payload, timeout=WAIT_S) == b"echo:" + payload


def test_multi_inference_goes_where_the_first_task_says(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    a, b = stage.worker("a"), stage.worker("b")
    frontend.route(ModelRoute("a", (version(1, a),), {}), ModelRoute("b", (version(1, b),), {}))
    call = channel.unary_unary(PREDICTION + "MultiInference")
    assert call(multi_inference("a", "b"), timeout=WAIT_S).startswith(b"a:")
    assert call(multi_inference("b", "a"), timeout=WAIT_S).startswith(b"b:")
    for payload in (b"", multi_inference(), multi_inference(None, "a"), multi_inference("", "a")):
        assert refusal(channel, payload, method=PREDICTION + "MultiInference") == (
            "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
        )
    assert refusal(channel, multi_inference("x"), method=PREDICTION + "MultiInference") == (
        "NOT_FOUND",
        "Servable not found for request: Latest(x)",
    )


def test_metadata_fields_are_checked_before_the_model(frontend: FakeFrontendOwner, channel: grpc.Channel) -> None:
    def refused(payload: bytes) -> tuple[str, str]:
        return refusal(channel, payload, method=PREDICTION + "GetModelMetadata")

    none = "GetModelMetadataRequest must specify at least one metadata_field"
    assert refused(metadata(None)) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refused(metadata("x")) == ("INVALID_ARGUMENT", none)
    assert refused(metadata("", "graph")) == ("INVALID_ARGUMENT", "Metadata field graph is not supported")
    assert refused(metadata("x", "signature_def", "q")) == ("INVALID_ARGUMENT", "Metadata field q is not supported")
    assert refused(metadata("x", "signature_def")) == ("NOT_FOUND", "Servable not found for request: Latest(x)")
    assert refused(metadata("x") + b"\x12\x01\xff")[0] == "INTERNAL"


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Nothing",
        "/tensorflow.serving.SessionService/SessionRun",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_what_is_not_served_is_unimplemented(frontend: FakeFrontendOwner, channel: grpc.Channel, method: str) -> None:
    assert refusal(channel, b"", method=method)[0] == "UNIMPLEMENTED"


# -- channel arguments and compression -----------------------------------------------------------------------------


class CountingProxy:
    """A TCP proxy before a port of this host that counts what passes: `sent` to the server, `received` from it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = self.received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pump, args=(client, server, "sent"), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, "received"), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counter: str) -> None:
        with contextlib.suppress(OSError), source, sink:
            while part := source.recv(65536):
                setattr(self, counter, getattr(self, counter) + len(part))
                sink.sendall(part)
            sink.shutdown(socket.SHUT_RDWR)


def counted(
    owner: FakeFrontendOwner, payload: bytes, compression: grpc.Compression | None
) -> tuple[bytes, CountingProxy]:
    """The reply to a Predict call, and what it took on the wire."""
    proxy = CountingProxy(owner.spec.grpc_port)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", compression=compression) as channel:
            reply: bytes = channel.unary_unary(PREDICTION + "Predict")(payload, timeout=WAIT_S)
    finally:
        proxy.close()
    return reply, proxy


def served(stage: Stage, **changes: Any) -> FakeFrontendOwner:
    owner = stage.frontend(**changes)
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    return owner


def test_compression(stage: Stage) -> None:
    payload = request(tail=bytes(1_000_000))
    plain = served(stage)
    reply, proxy = counted(plain, payload, grpc.Compression.Gzip)
    assert reply == b"echo:" + payload
    assert proxy.sent < 50_000
    assert proxy.received > 1_000_000, "replies are plain unless the operator says otherwise"
    packing = served(stage, grpc_arguments={"grpc.default_compression_algorithm": "2"})
    reply, proxy = counted(packing, payload, None)
    assert reply == b"echo:" + payload
    assert proxy.sent > 1_000_000
    assert proxy.received < 50_000


def test_messages_far_beyond_every_window(stage: Stage) -> None:
    """In and out, two at a time, on one connection."""
    payload = request(tail=bytes(40_000_000))
    owner = served(stage, max_request_bytes=1 << 26)
    options = (("grpc.max_receive_message_length", -1),)
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}", options) as channel:
        call = channel.unary_unary(PREDICTION + "Predict")
        replies = [call.future(payload, timeout=WAIT_S) for _ in range(2)]
        assert all(reply.result() == b"echo:" + payload for reply in replies)


def test_connections_end_at_their_maximum_age(stage: Stage) -> None:
    owner = served(stage, grpc_arguments={"grpc.max_connection_age_ms": "100", "no.such.argument": "x"})
    seen: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        channel.subscribe(seen.append, try_to_connect=True)
        eventually(lambda: grpc.ChannelConnectivity.READY in seen, "a connection")
        eventually(lambda: seen[-1] is grpc.ChannelConnectivity.IDLE, "the end of the connection")
    said = b"without effect under Envoy grpc_channel_arguments=no.such.argument" in owner.log
    assert said is (stage.engine is Engine.ENVOY)


def test_an_operator_may_set_what_we_set(stage: Stage) -> None:
    owner = served(stage, grpc_arguments={"grpc.max_receive_message_length": "1000"})
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        assert refusal(channel, request(tail=bytes(1001)))[0] == "RESOURCE_EXHAUSTED"
        assert channel.unary_unary(PREDICTION + "Predict")(request(tail=bytes(500)), timeout=WAIT_S)


def test_a_call_that_its_client_gives_up_is_dropped(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    worker: FakeWorker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    worker.hold.set()
    call = channel.unary_unary(PREDICTION + "MultiInference").future(multi_inference("m"), timeout=WAIT_S)
    eventually(lambda: worker.held, "the request")
    call.cancel()
    frontend.route()
    frontend.expect_released(worker)


def test_clients_that_give_up_in_numbers_cost_nobody_a_connection(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    """Deadlines that pass while a model is busy reset most of a connection's streams soon after they were opened."""
    worker: FakeWorker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    worker.hold.set()
    call = channel.unary_unary(PREDICTION + "Predict")
    patient = call.future(request(), timeout=WAIT_S)
    eventually(lambda: worker.held, "the patient one")
    for _ in range(6):
        hasty = [call.future(request(), timeout=0.1) for _ in range(100)]
        assert {each.exception(WAIT_S).code() for each in hasty} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    worker.release()
    assert patient.result(WAIT_S) == b"echo:" + request()


def test_a_request_message_is_left_as_the_client_wrote_it(
    stage: Stage, frontend: FakeFrontendOwner, channel: grpc.Channel
) -> None:
    """A real client's PredictRequest, unknown fields and all."""
    frontend.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "m"
    message.model_spec.signature_name = "s"
    message.inputs["x"].float_val.extend((1.0, 2.0))
    payload = message.SerializeToString() + b"\xf8\x07\x01"
    assert channel.unary_unary(PREDICTION + "Classify")(payload, timeout=WAIT_S) == b"echo:" + payload
