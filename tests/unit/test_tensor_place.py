"""Where the biggest tensor of a request begins."""

from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from modelpool.frontend import tensor_place
from modelpool.supervisor.wire.parts import Parts


def _request(content: bytes, field: str) -> bytes:
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = "m"
    asked.inputs["small"].int_val.extend([1, 2, 3])
    tensor = asked.inputs["big"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = len(content) // 4
    if field == "content":
        tensor.tensor_content = content
    else:
        tensor.float_val.extend([1.5] * (len(content) // 4))
    asked.output_filter.append("y")
    return asked.SerializeToString()


@given(st.integers(100, 5000), st.sampled_from(("content", "floats")))
def test_finds_the_values_of_the_biggest_tensor(count: int, field: str) -> None:
    content = b"\x00\x00\xc0?" * count
    raw = _request(content, field)
    assert raw[tensor_place.find(raw) :].startswith(content)
    for pieces in ((memoryview(raw),), (raw[:7], memoryview(raw)[7:])):
        assert tensor_place.find(Parts(pieces)) == tensor_place.find(raw)


@given(st.binary(max_size=300))
def test_anything_else_has_some_place(raw: bytes) -> None:
    assert 0 <= tensor_place.find(raw) <= len(raw)


def test_a_json_body_has_none() -> None:
    assert tensor_place.find(b'{"instances": [1.0, 2.0]}') == 0
    assert tensor_place.find(b"") == 0
