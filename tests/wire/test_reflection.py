"""gRPC server reflection: what it tells, and that it costs nothing before somebody asks."""

import queue
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelpool.supervisor.wire.frontend_messages import DrainFrontend

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually

# A frontend that says which modules of reflection it has loaded by the time that it listens.
TELLS_MODULES = """
import sys
from modelpool.frontend import main, session
class Control(session.Control):
    def send(self, message):
        if type(message).__name__ == "FrontendListening":
            names = ("grpc_reflection.v1alpha", "tensorflow_serving.apis.prediction_service_pb2")
            print(f"loaded={[name for name in names if name in sys.modules]}", file=sys.stderr, flush=True)
        return super().send(message)
session.Control = Control
sys.exit(main.main())
"""
REFLECTION = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def reflecting(stage: Stage) -> Iterator[tuple[FakeFrontendOwner, grpc.Channel]]:
    owner = stage.frontend(reflection=True, health=True)
    owner.open_ports()
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        yield owner, channel


def test_reflection_gives_services_and_their_messages(reflecting: tuple[FakeFrontendOwner, grpc.Channel]) -> None:
    _, channel = reflecting
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName("tensorflow.serving.PredictionService")
    assert {method.name for method in service.methods} >= {"Predict", "Classify", "GetModelMetadata"}
    assert service.methods_by_name["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"
    for name in database.get_services():
        assert pool.FindServiceByName(name).full_name == name


def test_reflection_v1_answers_like_v1alpha(reflecting: tuple[FakeFrontendOwner, grpc.Channel]) -> None:
    _, channel = reflecting
    replies = [
        list(
            channel.stream_stream(
                REFLECTION.format(package),
                reflection_pb2.ServerReflectionRequest.SerializeToString,
                reflection_pb2.ServerReflectionResponse.FromString,
            )(
                iter(
                    (
                        reflection_pb2.ServerReflectionRequest(list_services=""),
                        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Thing"),
                    )
                ),
                timeout=WAIT_S,
            )
        )
        for package in ("v1alpha", "v1")
    ]
    assert replies[0] == replies[1]
    assert [reply.WhichOneof("message_response") for reply in replies[0]] == [
        "list_services_response",
        "error_response",
    ]


def test_a_drain_waits_for_no_reflecting_client(reflecting: tuple[FakeFrontendOwner, grpc.Channel]) -> None:
    owner, channel = reflecting
    asks: queue.Queue[bytes | None] = queue.Queue()
    stream = channel.stream_stream(REFLECTION.format("v1alpha"))(iter(asks.get, None))
    asks.put(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    assert next(stream)
    owner.send(DrainFrontend(timeout_s=1000.0))
    assert owner.wait_exit() == 0
    asks.put(None)


@pytest.mark.grpcio_only
def test_nothing_is_loaded_for_reflection_before_somebody_asks(stage: Stage) -> None:
    owner = stage.frontend(reflection=True, program=TELLS_MODULES)
    owner.open_ports()
    eventually(lambda: b"loaded=" in owner.log, "what is loaded")
    assert b"loaded=[]" in owner.log
    with grpc.insecure_channel(f"127.0.0.1:{owner.spec.grpc_port}") as channel:
        assert "tensorflow.serving.ModelService" in ProtoReflectionDescriptorDatabase(channel).get_services()
