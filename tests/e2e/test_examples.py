"""Classify, regress, multi-inference and metadata of real models, over gRPC and REST, by stock clients.

Models: TF1 with parse_example in the graph (`half_plus_two`), a TF2 module with several signatures, some on serialized
tf.Examples and one on strings (`spam`), a Keras export (`dense`).
"""

import base64
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    regression_pb2,
)

from tests.e2e.pool import CALL_WITHIN_S, Pool, predict_request, refusal
from tests.e2e.tensor_proto import tensor, values

MODELS = {"half_plus_two": 123, "spam": 1, "dense": 2}


@pytest.fixture
def pool(shared_pool: Pool) -> Pool:
    return shared_pool


def fill(made: Any, model: str, signature: str, *examples: dict[str, Any]) -> Any:
    """A request with tf.Examples: features of bytes, or lists of floats."""
    made.model_spec.name = model
    made.model_spec.signature_name = signature
    add_examples(made.input.example_list, examples)
    return made


def add_examples(listed: Any, examples: Any) -> None:
    for each in examples:
        features = listed.examples.add().features.feature
        for name, value in each.items():
            if isinstance(value, bytes):
                features[name].bytes_list.value.append(value)
            else:
                features[name].float_list.value.extend(value)


def classify(pool: Pool, model: str, signature: str, *examples: dict[str, Any]) -> Any:
    asked = fill(classification_pb2.ClassificationRequest(), model, signature, *examples)
    return pool.stub().Classify(asked, timeout=CALL_WITHIN_S)


def regress(pool: Pool, model: str, signature: str, *examples: dict[str, Any]) -> Any:
    asked = fill(regression_pb2.RegressionRequest(), model, signature, *examples)
    return pool.stub().Regress(asked, timeout=CALL_WITHIN_S)


def rows(response: Any) -> list[list[tuple[str, float]]]:
    return [[(each.label, each.score) for each in row.classes] for row in response.result.classifications]


def spec_of(response: Any) -> tuple[str, int, str]:
    spec = response.model_spec
    return spec.name, spec.version.value, spec.signature_name


# -- gRPC --------------------------------------------------------------------------------------------------------


def test_tf1_over_grpc(pool: Pool) -> None:
    response = regress(pool, "half_plus_two", "regress_x_to_y", {"x": [1.0]}, {"x": [2.0]})
    assert [each.value for each in response.result.regressions] == [2.5, 3.0]
    assert spec_of(response) == ("half_plus_two", 123, "regress_x_to_y")
    response = classify(pool, "half_plus_two", "classify_x_to_y", {"x": [1.0]}, {"x": [2.0]})
    assert rows(response) == [[("", 2.5)], [("", 3.0)]]


def test_tf2_over_grpc(pool: Pool) -> None:
    response = classify(pool, "spam", "", {"text": b"\xff", "weights": [0.25, 0.75]}, {"weights": [1.0, 0.0]})
    assert rows(response) == [[("spam", 0.25), ("ham", 0.75)], [("spam", 1.0), ("ham", 0.0)]]
    assert spec_of(response) == ("spam", 1, "serving_default")
    response = regress(pool, "spam", "regress", {"weights": [0.25, 0.5]})
    assert [each.value for each in response.result.regressions] == [0.75]


def test_an_example_wins_over_the_context(pool: Pool) -> None:
    asked = regression_pb2.RegressionRequest()
    asked.model_spec.name, asked.model_spec.signature_name = "half_plus_two", "regress_x_to_y"
    listed = asked.input.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(10.0)
    add_examples(listed, [{}, {"x": [2.0]}])
    response = pool.stub().Regress(asked, timeout=CALL_WITHIN_S)
    assert [each.value for each in response.result.regressions] == [7.0, 3.0]


def test_multi_inference(pool: Pool) -> None:
    asked = inference_pb2.MultiInferenceRequest()
    for method in ("regress", "classify"):
        task = asked.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "half_plus_two", f"{method}_x_to_y"
    add_examples(asked.input.example_list, [{"x": [1.0]}, {"x": [2.0]}])
    first, second = pool.stub().MultiInference(asked, timeout=CALL_WITHIN_S).results
    assert [each.value for each in first.regression_result.regressions] == [2.5, 3.0]
    assert [row.classes[0].score for row in second.classification_result.classifications] == [2.5, 3.0]
    assert [spec_of(each) for each in (first, second)] == [
        ("half_plus_two", 123, "regress_x_to_y"),
        ("half_plus_two", 123, "classify_x_to_y"),
    ]


def test_serialized_examples_by_predict(pool: Pool) -> None:
    """What classify feeds can be fed by predict, too."""
    asked = fill(classification_pb2.ClassificationRequest(), "spam", "", {"weights": [0.5, 0.25]})
    raw = [example.SerializeToString() for example in asked.input.example_list.examples]
    outputs = pool.predict(predict_request("spam", {"inputs": tensor(raw, "string")})).outputs
    assert values(outputs["classes"]) == [[b"spam", b"ham"]]
    assert values(outputs["scores"]) == [[0.5, 0.25]]


def test_examples_that_do_not_parse(pool: Pool) -> None:
    """The op's own error, with its code."""
    code, text = refusal(lambda: regress(pool, "spam", "regress", {"weights": [0.25]}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "weights" in text


def metadata_of(pool: Pool, model: str) -> Any:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = model
    return pool.stub().GetModelMetadata(asked, timeout=CALL_WITHIN_S)


KEYS = {
    "half_plus_two": {
        *("serving_default", "classify_x_to_y", "classify_x2_to_y3"),
        *("regress_x_to_y", "regress_x_to_y2", "regress_x2_to_y3"),
    },
    "spam": {"serving_default", "regress", "length", "__saved_model_init_op"},
    "dense": {"serving_default", "serve", "__saved_model_init_op"},
}


def signatures_of(response: Any) -> Any:
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    return found.signature_def


@pytest.mark.parametrize("model", MODELS)
def test_metadata_over_grpc(pool: Pool, model: str) -> None:
    response = metadata_of(pool, model)
    assert spec_of(response) == (model, MODELS[model], "")
    assert set(signatures_of(response)) == KEYS[model]


# -- REST --------------------------------------------------------------------------------------------------------


def test_tf1_over_rest(pool: Pool) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    reply = pool.post("/v1/models/half_plus_two:regress", body)
    assert (reply.status, reply.text) == (200, '{\n    "results": [2.5, 3.0]\n}')
    assert reply.content_type == "application/json"
    body["signature_name"] = "classify_x_to_y"
    reply = pool.post("/v1/models/half_plus_two/versions/123:classify", body)
    assert (reply.status, reply.text) == (200, '{\n    "results": [[["", 2.5]], [["", 3.0]]\n    ]\n}')


def test_tf2_over_rest(pool: Pool) -> None:
    examples = [{"text": {"b64": "/w=="}, "weights": [0.25, 0.75]}, {"text": "\u00e9", "weights": [1.0, 0.0]}]
    reply = pool.post("/v1/models/spam:classify", {"examples": examples})
    assert reply.json == {"results": [[["spam", 0.25], ["ham", 0.75]], [["spam", 1.0], ["ham", 0.0]]]}
    body = {"signature_name": "regress", "context": {"weights": [1.5, 2.0]}, "examples": [{}, *examples]}
    assert pool.post("/v1/models/spam:regress", body).json == {"results": [3.5, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("verb", "body", "error"),
    [
        ("regress", "{", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("regress", '{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        (
            "classify",
            '{"signature_name": "x", "examples": [{}]}',
            "No signature was found with the name: x",
        ),
        ("regress", '{"examples": [{"x": 1.5}]}', "Expected one output Tensor."),
    ],
)
def test_rest_refusals(pool: Pool, verb: str, body: str, error: str) -> None:
    reply = pool.post(f"/v1/models/spam:{verb}", body)
    assert (reply.status, reply.error) == (400, error)


def test_a_whole_number_does_not_fit_a_float_feature(pool: Pool) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2}]}
    reply = pool.post("/v1/models/half_plus_two:regress", body)
    assert reply.status == 400
    assert "Data types don't match" in reply.error


def test_strings_by_predict_over_rest(pool: Pool) -> None:
    body = {"signature_name": "length", "instances": ["ab", {"b64": base64.b64encode(b"\xff\x00").decode()}]}
    reply = pool.post("/v1/models/spam:predict", body)
    reversed_bytes = [base64.b64encode(raw).decode() for raw in (b"ba", b"\x00\xff")]
    assert reply.json == {"predictions": [{"length": 2, "text_bytes": {"b64": text}} for text in reversed_bytes]}


@pytest.mark.parametrize("model", MODELS)
def test_metadata_over_rest(pool: Pool, model: str) -> None:
    """The same as over gRPC."""
    reply = pool.get(f"/v1/models/{model}/metadata")
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert reply.json["model_spec"] == {"name": model, "signature_name": "", "version": str(MODELS[model])}
    listed = reply.json["metadata"]["signature_def"]["signature_def"]
    assert set(listed) == KEYS[model]
    for key, signature in signatures_of(metadata_of(pool, model)).items():
        assert listed[key]["method_name"] == signature.method_name
        for side in ("inputs", "outputs"):
            wanted = {name: info.name for name, info in getattr(signature, side).items()}
            assert {name: info["name"] for name, info in listed[key][side].items()} == wanted
