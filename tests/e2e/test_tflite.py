"""TensorFlow Lite models: with and without signature definitions, beside a SavedModel, split over interpreters."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc, regression_pb2

from tests.e2e.pool import CALL_WITHIN_S, Pool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor, values

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MODELS = (
    "tflite",
    "tflite_bare",
    "tflite_mixed",
    "tflite_remembering",
    "tflite_described",
    "tflite_examples",
    "tflite_flex",
    "tflite_corrupt",
    "sum",
)


@pytest.fixture(scope="module", params=[1, 2], ids=["one interpreter", "two interpreters"])
def pool(models: Path, request: pytest.FixtureRequest) -> Iterator[Pool]:
    flags = ("--prefer_tflite_model", f"--num_tflite_interpreters_per_pool={request.param}")
    with running_pool(model_config({name: models / name for name in MODELS}), *flags) as pool:
        yield pool


def predict(pool: Pool, model: str, rows: Any, alias: str = "x", dtype: str = "float32") -> Any:
    return pool.predict(predict_request(model, {alias: tensor(rows, dtype)}))


def test_with_signature_definitions(pool: Pool) -> None:
    for count in (1, 2, 5, 3):
        rows = [[float(number), 1.0, 2.0] for number in range(count)]
        reply = predict(pool, "tflite", rows)
        assert values(reply.outputs["y"]) == [[number + 5.0] for number in range(count)]
        assert reply.model_spec.signature_name == "serving_default"


def test_a_request_is_split_only_where_that_makes_no_difference(pool: Pool) -> None:
    reply = predict(pool, "tflite_mixed", [[1.0, 2.0], [3.0, 4.0]])
    assert sorted(str(values(output)) for output in reply.outputs.values()) == [
        "[1.0, 2.0, 3.0]",
        "[[-1.0, -1.0], [1.0, 1.0]]",
    ]
    if pool.flags[-1].endswith("=2"):
        assert "splitting signature=serving_default sound=True" in pool.log, "of tflite and tflite_bare"


def test_a_model_that_remembers_has_one_memory(pool: Pool) -> None:
    """Each interpreter has variables of its own."""
    x = tensor([[5.0], [7.0], [6.0], [3.0]], "float32")
    pool.predict(predict_request("tflite_remembering", {"x": x}, signature="put"))
    reply = pool.predict(predict_request("tflite_remembering", {"x": x}, signature="get"))
    assert values(reply.outputs["y"]) == [[12.0], [14.0], [13.0], [10.0]]


def test_without_signature_definitions(pool: Pool) -> None:
    reply = predict(pool, "tflite_bare", [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    (answer,) = reply.outputs.values()
    assert values(answer) == [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]


def test_with_signature_definitions_in_the_metadata(pool: Pool) -> None:
    """As TF Serving reads them: their keys and aliases count, not the names of the model's tensors."""
    request = predict_request("tflite_described", {"number": tensor([[1.0, 2.0], [3.0, 4.0]])}, signature="doubling")
    assert values(pool.predict(request).outputs["twice"]) == [[2.0, 4.0], [6.0, 8.0]]
    by_rest = pool.post(
        "/v1/models/tflite_described:predict", {"signature_name": "doubling", "instances": [{"number": [1.0, 2.0]}]}
    )
    assert by_rest.json == {"predictions": [[2.0, 4.0]]}
    request.model_spec.signature_name = ""
    text = 'Serving signature key "serving_default" not found.'
    assert refusal(lambda: pool.predict(request)) == (grpc.StatusCode.FAILED_PRECONDITION, text)


def test_examples_by_a_custom_operation(pool: Pool) -> None:
    """TF Serving has ParseExample in its interpreter; here TensorFlow does it before the interpreter runs."""
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "tflite_examples"
    for number in (3.0, 5.0, None):
        example = request.input.example_list.examples.add()
        if number is not None:
            example.features.feature["x"].float_list.value.append(number)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(pool.channel)
    regressed = stub.Regress(request, timeout=CALL_WITHIN_S).result.regressions
    assert [each.value for each in regressed] == [3.5, 4.5, 6.0]
    vector = [each.SerializeToString() for each in request.input.example_list.examples]
    asked = predict_request("tflite_examples", {"inputs": tensor(vector, "string")})
    reply = pool.predict(asked)
    assert values(reply.outputs["outputs"]) == [[3.5], [4.5], [6.0]]
    example = request.input.example_list.examples[0]
    example.features.feature["s"].int64_list.value.extend([7, 8])
    example.features.feature["c"].float_list.value.append(-1.0)
    alone = tensor([example.SerializeToString()], "string")
    assert values(pool.predict(predict_request("tflite_examples", {"inputs": alone})).outputs["outputs"]) == [[2.5]]
    asked.inputs["inputs"].CopyFrom(tensor([b"\xff no example"], "string"))
    code, text = refusal(lambda: pool.predict(asked))
    assert code is INVALID
    assert "Could not parse example input" in text
    assert values(predict(pool, "tflite_examples", vector[:1], "inputs", "string").outputs["outputs"]) == [[3.5]]


def test_over_rest(pool: Pool) -> None:
    assert pool.post("/v1/models/tflite:predict", {"instances": [[1, 2, 3], [0, 0, 0]]}).json == {
        "predictions": [[8.0], [2.0]]
    }


def test_metadata(pool: Pool) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tflite"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(pool.channel)
    reply = stub.GetModelMetadata(request, timeout=CALL_WITHIN_S)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(found)
    x = found.signature_def["serving_default"].inputs["x"]
    assert (x.dtype, [dim.size for dim in x.tensor_shape.dim]) == (1, [-1, 3])


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [([[1.0, 2.0]], "float32"), ([1.0, 2.0, 3.0], "float32"), (1.0, "float32"), ([[1, 2, 3]], "int32")],
    ids=["width", "rank 1", "scalar", "dtype"],
)
def test_wrong_inputs(pool: Pool, rows: Any, dtype: str) -> None:
    """They are refused before the interpreter sees them, and the next request is served."""
    code, _ = refusal(lambda: predict(pool, "tflite", rows, dtype=dtype))
    assert code is INVALID
    assert values(predict(pool, "tflite", [[1.0, 2.0, 3.0]]).outputs["y"]) == [[8.0]]


def test_an_empty_batch(pool: Pool) -> None:
    request = predict_request("tflite", {"x": tensor([[1.0, 2.0, 3.0]])})
    request.inputs["x"].tensor_shape.dim[0].size = 0
    assert [dim.size for dim in pool.predict(request).outputs["y"].tensor_shape.dim] == [0, 1]


def test_a_corrupt_file(pool: Pool) -> None:
    (status,) = pool.model_status("tflite_corrupt").model_version_status
    assert (status.state, status.status.error_code) == (50, 3), "END with INVALID_ARGUMENT"
    assert "Cannot build FlatBufferModel from file" in status.status.error_message
    assert values(pool.predict(predict_request("sum", {"a": tensor([1.0]), "b": tensor([2.0])})).outputs["total"]) == [
        3.0
    ]


def test_operations_that_are_not_there_end_the_load(pool: Pool) -> None:
    (status,) = pool.model_status("tflite_flex").model_version_status
    assert (status.state, status.status.error_code) == (50, 3), "END with INVALID_ARGUMENT"
    assert status.status.error_message.startswith("Failed to allocate tensors: Select TensorFlow op(s), included in ")


def test_the_saved_model_without_the_flag(shared_pool: Pool) -> None:
    assert values(predict(shared_pool, "tflite", [[1.0, 2.0, 3.0]]).outputs["y"]) == [[7.0]]


_ASKED = """
import sys
from types import SimpleNamespace
from modelpool.worker import loader, main
loader.gpu_peak_bytes = lambda: 7
for path in sys.argv[1:]:
    print(main._gpu_peak_bytes(SimpleNamespace(cuda_visible_devices="GPU-a", prefer_tflite=True, path=path)))
"""


def test_on_a_gpu_nothing_is_asked_of_it_for_a_model_that_does_not_use_it(tmp_path: Path) -> None:
    """To ask TensorFlow would make a context there."""
    (tmp_path / "lite").mkdir()
    (tmp_path / "lite" / "model.tflite").write_bytes(b"")
    command = [sys.executable, "-c", _ASKED, str(tmp_path / "lite"), str(tmp_path / "saved_model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["0", "7"], done.stderr
