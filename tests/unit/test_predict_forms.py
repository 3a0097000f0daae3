"""Requests that are read by comparing them with earlier ones: as they would be read by themselves."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import PoolError
from modelpool.worker import predict_forms
from modelpool.worker.model_spec import Identity
from modelpool.worker.plan import Plan
from modelpool.worker.predict import Predictor
from modelpool.worker.predict_wire import Reader
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

ENOUGH = 2  # the first of a length only tells of the length
DTYPES = {"x": types_pb2.DT_FLOAT, "k": types_pb2.DT_DOUBLE, "n": types_pb2.DT_INT64}


class FakeModel:
    """`y` is `x` and the sum of the others, if they are sent."""

    def __init__(self, inputs: Sequence[str]) -> None:
        made = meta_graph_pb2.SignatureDef()
        for name in inputs:
            made.inputs[name].name, made.inputs[name].dtype = f"{name}:0", DTYPES[name]
        for name in ("y", "z"):
            made.outputs[name].name, made.outputs[name].dtype = f"{name}:0", types_pb2.DT_FLOAT
        self.signatures: Mapping[str, Any] = {"serving_default": made}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        others = [array.sum() for name, array in feeds.items() if name != "x:0"]
        with np.errstate(all="ignore"):
            return [np.asarray(feeds["x:0"] + sum(others), np.float32) for _ in fetches]


def predictor(inputs: Sequence[str] = ("x", "k")) -> Predictor:
    return Predictor(FakeModel(inputs), Identity("m", 7))


def request(
    *numbers: float,
    inputs: Sequence[str] = ("x", "k"),
    content: bool = False,
    outputs: Sequence[str] = (),
    shape: Sequence[int] = (-1,),
) -> bytes:
    asked = predict_pb2.PredictRequest(output_filter=outputs)
    asked.model_spec.name = "m"
    for name in inputs:
        array = np.array(numbers, tensors.DTYPES[DTYPES[name]].numpy).reshape(shape)
        asked.inputs[name].CopyFrom(tensors.encode(array, DTYPES[name], as_content=content))
    return bytes(asked.SerializeToString(deterministic=True))


def outcome(predictor: Predictor, payload: Any) -> Any:
    """What is fed and asked for, and the answer; or the refusal."""
    try:
        plan = predictor.plan_payload(payload)
        assert plan.feeds is not None
        feeds = [(name, each.dtype, each.shape, each.tobytes()) for name, each in plan.feeds.items()]
        return feeds, list(plan.fetches), plan.signatures, predictor.grpc(payload)
    except PoolError as error:
        return error.status


def knowing(*payloads: bytes, inputs: Sequence[str] = ("x", "k")) -> Predictor:
    """One that has seen requests like these."""
    made = predictor(inputs)
    for payload in payloads * ENOUGH:
        made.grpc(payload)
    return made


NUMBERS = st.lists(st.floats(width=32), min_size=3, max_size=3)


@given(NUMBERS, st.booleans(), st.booleans())
def test_other_numbers(numbers: list[float], content: bool, as_view: bool) -> None:
    payload = request(*numbers, content=content)
    known = knowing(request(1, 2, 3, content=content))
    assert outcome(known, memoryview(payload) if as_view else payload) == outcome(predictor(), payload)


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (3, 1, 1)])
def test_every_rank_is_fed_as_it_is(shape: tuple[int, ...], content: bool) -> None:
    first, later = (range(begin, begin + int(np.prod(shape))) for begin in (1, 7))
    known = knowing(request(*first, shape=shape, content=content))
    payload = request(*later, shape=shape, content=content)
    assert known.forms.read(payload) is not None
    assert outcome(known, payload) == outcome(predictor(), payload)


@pytest.mark.parametrize("content", [False, True])
@given(NUMBERS, st.data())
def test_spoiled_bytes_come_to_the_same(content: bool, numbers: list[float], data: st.DataObject) -> None:
    usual = [request(1, 2, 3, content=content), request(1, 2, 3, content=content, outputs=["y"])]
    payload = bytearray(request(*numbers, content=content, outputs=data.draw(st.sampled_from([[], ["y"]]))))
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(knowing(*usual), bytes(payload)) == outcome(predictor(), bytes(payload))


@given(st.lists(st.integers(-300, 300), min_size=3, max_size=3))
def test_numbers_that_are_not_fed_as_they_lie(numbers: list[int]) -> None:
    inputs = ("x", "n")
    known = knowing(request(1, 2, 3, inputs=inputs), request(*numbers, inputs=inputs), inputs=inputs)
    for content in (False, True):
        payload = request(*numbers, inputs=inputs, content=content)
        assert outcome(known, payload) == outcome(predictor(inputs), payload)


def test_more_values_than_the_shape_wants() -> None:
    def longer(*numbers: float) -> bytes:
        asked = predict_pb2.PredictRequest()
        asked.inputs["x"].dtype = types_pb2.DT_FLOAT
        asked.inputs["x"].tensor_shape.dim.add().size = 2
        asked.inputs["x"].float_val.extend(numbers)
        return bytes(asked.SerializeToString())

    known = knowing(longer(1, 2, 3), inputs=["x"])
    for numbers in ((4, 5, 3), (4, 5, 6), (1, 2, 3)):
        assert outcome(known, longer(*numbers)) == outcome(predictor(["x"]), longer(*numbers))


def test_what_is_known_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    known = knowing(request(1, 2, 3))
    reads: list[Any] = []
    monkeypatch.setattr(Reader, "read", lambda _, payload: reads.append(payload))
    answer = predict_pb2.PredictResponse.FromString(known.grpc(request(4, 5, 6)))
    assert tensors.decode("y", answer.outputs["y"]).tolist() == [19, 20, 21]
    assert not reads
    known.grpc(request(4, 5, 6, 7))
    assert len(reads) == 1, "another length is read"


def test_nothing_of_a_payload_is_kept_but_what_is_around_its_values() -> None:
    forms = predict_forms.Forms()
    payloads = [request(*[1] * count) for count in range(200)]
    asked = predictor()
    for payload in payloads * ENOUGH:
        forms.learn(payload, asked.plan_payload(payload))
    assert forms.read(payloads[0]) is None, "it was forgotten"
    known = [payload for payload in payloads if forms.read(payload) is not None]
    assert len(known) <= predict_forms._LENGTHS
    assert forms.read(payloads[-1]) is None
    forms.learn(payloads[-1], asked.plan_payload(payloads[-1]))
    assert forms.read(payloads[-1]) is not None


def learned(payload: Any, feeds: Mapping[str, np.ndarray]) -> predict_forms.Forms:
    """What is known after requests of which this is fed."""
    forms = predict_forms.Forms()
    for _ in range(ENOUGH):
        forms.learn(payload, Plan(feeds, ["y:0"], lambda _: b""))
    return forms


def test_what_lies_in_the_payload_with_gaps_is_read_each_time() -> None:
    payload = bytes(40)
    numbers = np.frombuffer(payload, np.float32)
    assert learned(payload, {"x:0": numbers}).read(payload) is not None
    assert learned(payload, {"x:0": numbers[::2]}).read(payload) is None


@pytest.mark.parametrize("begin", [0, 4, 28, 32])
def test_what_lies_outside_of_the_payload_is_read_each_time(begin: int) -> None:
    around = bytes(40)
    payload, array = memoryview(around)[8:32], np.frombuffer(around, np.float32, 2, begin)
    assert learned(payload, {"x:0": np.frombuffer(payload, np.float32)}).read(payload) is not None
    assert learned(payload, {"x:0": array}).read(payload) is None


@pytest.mark.parametrize("empty", [True, False])
def test_where_nothing_is_fed_all_bytes_are_compared(empty: bool) -> None:
    payload = bytes(range(10))
    feeds = {"x:0": np.frombuffer(payload, np.float32, 0, 4).reshape(0, 2)} if empty else {}
    forms = learned(payload, feeds)
    plan = forms.read(payload)
    assert plan is not None
    assert plan.feeds is not None
    assert {name: array.shape for name, array in plan.feeds.items()} == ({"x:0": (0, 2)} if empty else {})
    for at in range(len(payload)):
        other = bytearray(payload)
        other[at] ^= 1
        assert forms.read(bytes(other)) is None


def test_what_lies_around_the_values_is_measured_before_it_is_copied() -> None:
    payload = bytes(1 << 20)
    tracemalloc.start()
    try:
        forms = learned(payload, {"x:0": np.frombuffer(payload, np.float32, 2, 100)})
        assert tracemalloc.get_traced_memory()[1] < len(payload) // 4
    finally:
        tracemalloc.stop()
    assert forms.read(payload) is None


def test_a_form_that_would_keep_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_forms, "_KEPT_BYTES", 10)
    forms, payload = predict_forms.Forms(), request(1, 2, 3)
    for _ in range(ENOUGH):
        forms.learn(payload, predictor().plan_payload(payload))
    assert forms.read(payload) is None


def test_requests_that_never_repeat_are_not_looked_at_for_ever() -> None:
    forms, asked = predict_forms.Forms(), predictor()
    for number in range(predict_forms._TRIES + 10):
        payload = request(1, 2, 3, outputs=["y", "z"] if number % 2 else ["z", "y"])
        forms.learn(payload, asked.plan_payload(payload))
    known = forms._known[len(payload)]
    assert known.tries == predict_forms._TRIES
    assert len(known.forms) <= predict_forms._FORMS
