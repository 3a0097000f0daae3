"""The client against a small grpc server that plays TensorFlow Serving: what it sends, takes, repeats and refuses."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest

from modelpool.frontend import client as client_package
from modelpool.frontend.client import AsyncClient, Client, InputError, Unavailable
from modelpool.frontend.client import protos as p
from modelpool.frontend.client.protos import tensors
from modelpool.supervisor.wire.status import Code

FLOAT, INT8, INT64 = 1, 6, 9
REQUESTS = {
    "Predict": p.PredictRequest,
    "Classify": p.ClassificationRequest,
    "Regress": p.RegressionRequest,
    "MultiInference": p.MultiInferenceRequest,
    "GetModelMetadata": p.GetModelMetadataRequest,
    "GetModelStatus": p.GetModelStatusRequest,
    "HandleReloadConfigRequest": p.ReloadConfigRequest,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer with its trailing metadata."""

    code: grpc.StatusCode
    text: str = "refused"
    trailing: tuple[tuple[str, str], ...] = ()


@dataclass
class Server(grpc.GenericRpcHandler):
    """Answers `y` = the sum of the inputs in `dtype`; `refusals` come first, one per call of that method."""

    dtype: int = FLOAT
    version: int = 3
    port: int = 0
    refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    called: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        answer: Callable[[Any], Any] = getattr(self, f"answer_{name}")

        def handle(request: Any, context: Any) -> Any:
            self.calls.append((name, request))
            self.called.set()
            self.metadata.append(dict(context.invocation_metadata()))
            if self.refusals.get(name):
                refusal = self.refusals[name].pop(0)
                context.set_trailing_metadata(refusal.trailing)
                context.abort(refusal.code, refusal.text)
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(
            handle, REQUESTS[name].FromString, lambda reply: reply.SerializeToString()
        )

    def answer_Predict(self, request: Any) -> Any:
        if request.model_spec.name == "hangs":
            self.released.wait(10)
        reply = p.PredictResponse()
        reply.model_spec.version.value = self.version
        arrays = [tensors.decode(name, proto) for name, proto in request.inputs.items()]
        for name, proto in request.inputs.items():
            if proto.dtype not in (self.dtype, 7):
                raise AssertionError(f"{name} has dtype {proto.dtype}, the model wants {self.dtype}")
        if request.model_spec.name == "echo":
            reply.outputs["y"].CopyFrom(request.inputs["x"])
        else:
            total = np.sum(arrays, axis=0).astype(tensors.DTYPES[self.dtype].stored)
            reply.outputs["y"].CopyFrom(tensors.encode(total, self.dtype))
            reply.outputs["content"].CopyFrom(tensors.encode(total, self.dtype, as_content=True))
        return reply

    def answer_Classify(self, request: Any) -> Any:
        reply = p.ClassificationResponse()
        for _ in request.input.example_list.examples:
            reply.result.classifications.add().classes.add(label="a", score=0.5)
        return reply

    def answer_Regress(self, request: Any) -> Any:
        reply = p.RegressionResponse()
        for example in request.input.example_list.examples:
            reply.result.regressions.add().value = example.features.feature["x"].float_list.value[0]
        return reply

    def answer_MultiInference(self, request: Any) -> Any:
        reply = p.MultiInferenceResponse()
        for task in request.tasks:
            if task.method_name.endswith("classify"):
                reply.results.add().classification_result.CopyFrom(self.answer_Classify(request).result)
            else:
                reply.results.add().regression_result.CopyFrom(self.answer_Regress(request).result)
        return reply

    def answer_GetModelMetadata(self, request: Any) -> Any:
        reply = p.GetModelMetadataResponse()
        reply.model_spec.name = request.model_spec.name
        reply.model_spec.version.value = self.version
        found = p.SignatureDefMap()
        signature = found.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        signature.inputs["x"].dtype = self.dtype
        signature.inputs["x"].tensor_shape.dim.add().size = -1
        signature.inputs["x"].tensor_shape.dim.add().size = 3
        signature.outputs["y"].dtype = self.dtype
        signature.outputs["y"].tensor_shape.unknown_rank = True
        reply.metadata["signature_def"].Pack(found)
        return reply

    def answer_GetModelStatus(self, request: Any) -> Any:
        reply = p.GetModelStatusResponse()
        reply.model_version_status.add(version=1, state=50)
        reply.model_version_status[0].status.error_code = 5
        reply.model_version_status[0].status.error_message = "no file"
        reply.model_version_status.add(version=2, state=30)
        return reply

    def answer_HandleReloadConfigRequest(self, request: Any) -> Any:
        reply = p.ReloadConfigResponse()
        if not request.config.model_config_list.config:
            reply.status.error_code = 3
            reply.status.error_message = "nothing to serve"
        return reply

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def server() -> Iterator[Server]:
    handler = Server()
    made = grpc.server(futures.ThreadPoolExecutor(4), [handler], options=[("grpc.max_receive_message_length", -1)])
    handler.port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    yield handler
    handler.released.set()
    made.stop(None).wait()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.port}", timeout_s=20) as client:
        yield client


def test_predict(client: Client, server: Server) -> None:
    outputs = client.predict("m", {"x": np.array([1, 2], np.float32), "z": np.array([3, 4], np.float32)})
    np.testing.assert_array_equal(outputs["y"], np.array([4, 6], np.float32), strict=True)
    np.testing.assert_array_equal(outputs["content"], outputs["y"], strict=True)
    assert (list(outputs), outputs.model_version) == (["content", "y"], 3)
    assert server.names() == ["Predict"]
    assert server.calls[0][1].inputs["x"].tensor_content


@pytest.mark.parametrize("array", [np.array([b"a\0", b"\xff"], object), np.empty((0, 2), np.float32)])
def test_arrays_come_back_as_they_went(client: Client, array: np.ndarray) -> None:
    np.testing.assert_array_equal(client.predict("echo", {"x": array})["y"], array, strict=True)


def test_what_a_request_says_of_the_model(client: Client, server: Server) -> None:
    x = {"x": np.zeros(1, np.float32)}
    client.predict("m", x, version=2, signature="s", outputs=["b", "a"])
    client.predict("m", x, label="stable")
    client.predict("m", x)
    numbered, labelled, newest = (request for _, request in server.calls)
    assert (numbered.model_spec.version.value, numbered.model_spec.signature_name) == (2, "s")
    assert list(numbered.output_filter) == ["b", "a"]
    assert labelled.model_spec.version_label == "stable"
    assert newest.model_spec.WhichOneof("version_choice") is None
    with pytest.raises(InputError, match="version and label: expected one of them"):
        client.predict("m", x, version=1, label="stable")


def test_literals_are_sent_as_the_model_declares(client: Client, server: Server) -> None:
    assert client.predict("m", {"x": [1, 2.0]})["y"].tolist() == [1.0, 2.0]
    assert client.predict("m", [5])["y"].tolist() == [5.0]
    assert server.names() == ["GetModelMetadata", "Predict", "Predict"]


def test_signatures_are_asked_for_again_when_another_version_answers(client: Client, server: Server) -> None:
    client.predict("m", [1])
    server.version = 4
    client.predict("m", [1])
    client.predict("m", [1])
    assert server.names() == ["GetModelMetadata", "Predict", "Predict", "GetModelMetadata", "Predict"]


def test_a_version_with_another_dtype(client: Client, server: Server) -> None:
    """What was remembered makes a request that the new version refuses; the client learns, the user sees nothing."""
    client.predict("m", [1])
    server.version, server.dtype = 4, INT64
    server.refusals["Predict"] = [Refusal(grpc.StatusCode.INVALID_ARGUMENT)]
    assert client.predict("m", [1])["y"].dtype == np.int64


def test_a_version_that_takes_more(client: Client, server: Server) -> None:
    """What was remembered says that the value does not fit; that is asked again before the user is told."""
    server.dtype = INT8
    client.predict("m", [1])
    server.version, server.dtype = 4, INT64
    assert client.predict("m", [2**40])["y"].tolist() == [2**40]
    with pytest.raises(InputError, match="does not fit into int64"):
        client.predict("m", [2**80])


def test_a_refusal_with_the_same_signature_is_not_repeated(client: Client, server: Server) -> None:
    client.predict("m", [1])
    server.refusals["Predict"] = [Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad shape")]
    with pytest.raises(client_package.InvalidArgument, match="INVALID_ARGUMENT: bad shape"):
        client.predict("m", [1])
    assert server.names().count("Predict") == 2


def test_a_server_without_metadata(client: Client, server: Server) -> None:
    server.refusals["GetModelMetadata"] = [Refusal(grpc.StatusCode.UNIMPLEMENTED)] * 2
    assert client.predict("m", {"x": [1.0]})["y"].tolist() == [1.0]
    with pytest.raises(InputError, match="the signature's inputs are not known"):
        client.predict("m", [1.0])


def test_a_server_that_is_away_is_not_guessed_at(client: Client, server: Server) -> None:
    server.refusals["GetModelMetadata"] = [Refusal(grpc.StatusCode.UNAVAILABLE, "away")]
    with pytest.raises(Unavailable, match="away"):
        client.predict("m", {"x": [1.0]})


def test_examples(client: Client) -> None:
    examples = [{"x": 1.5}, {"x": 2.5}]
    assert client.classify("m", examples) == [[("a", 0.5)], [("a", 0.5)]]
    np.testing.assert_array_equal(client.regress("m", examples), np.array([1.5, 2.5], np.float32), strict=True)
    both = client.multi_inference("m", examples, {"c": "classify", "r": "regress"})
    assert both["c"] == [[("a", 0.5)], [("a", 0.5)]]
    assert np.asarray(both["r"]).tolist() == [1.5, 2.5]
    with pytest.raises(InputError, match="expected 'classify' or 'regress'"):
        client.multi_inference("m", examples, {"c": "predict"})  # type: ignore[dict-item]


def test_metadata(client: Client) -> None:
    found = client.metadata("m")
    assert (found.name, found.version) == ("m", 3)
    signature = found.signatures["serving_default"]
    assert (signature.inputs["x"].dtype, signature.inputs["x"].shape) == ("float32", (None, 3))
    assert signature.outputs["y"].shape is None
    assert signature.method_name == "tensorflow/serving/predict"


def test_status(client: Client) -> None:
    newest, oldest = client.status("m")
    assert (newest.version, newest.state, newest.available, newest.error.code) == (2, "AVAILABLE", True, Code.OK)
    assert (oldest.version, oldest.state, str(oldest.error)) == (1, "END", "NOT_FOUND: no file")


def test_reload(client: Client, server: Server) -> None:
    client.reload('model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" } }')
    assert server.calls[0][1].config.model_config_list.config[0].name == "a"
    client.reload(server.calls[0][1].config)
    assert server.calls[1][1] == server.calls[0][1]
    with pytest.raises(client_package.InvalidArgument, match="nothing to serve"):
        client.reload("")
    with pytest.raises(InputError, match="not a ModelServerConfig in text format: 1:1"):
        client.reload("nonesuch: 1")


def test_errors_have_code_text_and_cause(client: Client, server: Server) -> None:
    server.refusals["GetModelStatus"] = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "not you", (("why", "rule"),))]
    with pytest.raises(client_package.PermissionDenied) as refused:
        client.status("m")
    assert (refused.value.code, refused.value.message) == (Code.PERMISSION_DENIED, "not you")
    assert refused.value.trailing["why"] == "rule"
    assert isinstance(refused.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize("hint", [("retry-after", "0.05"), ("grpc-retry-pushback-ms", "50")])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_hint_of_the_server_is_followed(
    client: Client, server: Server, code: grpc.StatusCode, hint: tuple[str, str]
) -> None:
    server.refusals["Predict"] = [Refusal(code, trailing=(hint,))] * 2
    assert client.predict("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [1.0]
    assert server.names() == ["Predict"] * 3


def test_without_a_hint_one_call_is_made(client: Client, server: Server) -> None:
    server.refusals["GetModelStatus"] = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 3
    with pytest.raises(Unavailable):
        client.status("m")
    assert len(server.calls) == 1


def test_retries_by_wish(server: Server) -> None:
    server.refusals["GetModelStatus"] = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 2
    with Client(f"127.0.0.1:{server.port}", retries=2) as client:
        assert len(client.status("m")) == 2


def test_a_hint_beyond_the_deadline(client: Client, server: Server) -> None:
    server.refusals["GetModelStatus"] = [Refusal(grpc.StatusCode.UNAVAILABLE, trailing=(("retry-after", "30"),))]
    with pytest.raises(Unavailable) as refused:
        client.status("m")
    assert refused.value.trailing["retry-after"] == "30"


def test_the_deadline(client: Client) -> None:
    with pytest.raises(client_package.DeadlineExceeded):
        client.predict("hangs", {"x": np.zeros(1, np.float32)}, timeout_s=0.2)


def test_no_deadline(client: Client) -> None:
    assert client.predict("m", {"x": np.ones(1, np.float32)}, timeout_s=math.inf)["y"].tolist() == [1.0]


def test_metadata_of_every_call(server: Server) -> None:
    with Client(f"127.0.0.1:{server.port}", metadata={"X-Tenant": "blue"}) as client:
        client.status("m")
        client.metadata("m")
    assert [each["x-tenant"] for each in server.metadata] == ["blue", "blue"]


def test_messages_of_many_megabytes(client: Client) -> None:
    big = np.ones((3000, 1000), np.float32)
    assert client.predict("m", {"x": big})["content"].shape == big.shape


def test_a_closed_client(server: Server) -> None:
    client = Client(f"127.0.0.1:{server.port}")
    client.close()
    client.close()
    with pytest.raises(client_package.Cancelled):
        client.status("m")


def test_closing_ends_a_wait(server: Server) -> None:
    """A thread that waits for its next attempt does not wait any longer once the client is closed."""
    server.refusals["GetModelStatus"] = [Refusal(grpc.StatusCode.UNAVAILABLE, trailing=(("retry-after", "50"),))]
    client = Client(f"127.0.0.1:{server.port}", timeout_s=100)
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.status, "m")
        assert server.called.wait(10)
        client.close()
        with pytest.raises(client_package.Cancelled):
            waiting.result(10)


@pytest.mark.parametrize("arguments", [{"timeout_s": 0}, {"timeout_s": math.nan}, {"retries": -1}])
def test_arguments_that_make_no_client(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Client("localhost:1", **arguments)


def test_asyncio(server: Server) -> None:
    hint = (("retry-after", "0.05"),)
    server.refusals["Predict"] = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=hint)]

    async def use() -> None:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout_s=20) as client:
            many = await asyncio.gather(*(client.predict("m", [float(n)]) for n in range(20)))
            assert [each["y"].tolist() for each in many] == [[float(n)] for n in range(20)]
            assert await client.classify("m", [{"x": 1.0}]) == [[("a", 0.5)]]
            assert (await client.regress("m", [{"x": 1.5}])).tolist() == [1.5]
            assert list(await client.multi_inference("m", [{"x": 1.5}], {"r": "regress"})) == ["r"]
            assert (await client.metadata("m")).version == 3
            assert len(await client.status("m")) == 2
            with pytest.raises(client_package.InvalidArgument, match="nothing to serve"):
                await client.reload("")
            with pytest.raises(client_package.DeadlineExceeded) as late:
                await client.predict("hangs", {"x": np.zeros(1, np.float32)}, timeout_s=0.2)
            assert isinstance(late.value.__cause__, grpc.RpcError)
        with pytest.raises(client_package.Cancelled):
            await client.status("m")

    asyncio.run(use())
