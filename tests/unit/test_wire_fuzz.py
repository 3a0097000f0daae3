"""Spoiled requests, read by hand and by the protobuf library: taken by both or by neither, and for the same.

The suite runs a short form; `scripts/fuzz` runs many more. Bodies are spoiled as those that are sent to a whole pool.
"""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from modelpool.frontend import model_spec
from modelpool.frontend.model_spec import MalformedRequest, ModelSpec, TooManyFields
from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import PoolError
from modelpool.worker import predict
from modelpool.worker.model_spec import Identity
from modelpool.worker.predict import Predictor
from modelpool.worker.predict_wire import Reader
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from tests.e2e.mutations import Call, grpc_corpus, spoiled

_BATCH = 50
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_DTYPES = ("float32", "float64", "int64", "int32", "uint8", "uint64", "string", "bool", "complex64", "bfloat16", "half")


def _tensor(name: str, *, content: bool) -> Any:
    row = next(
        row for row in tensors.DTYPES.values() if row.name == {"float32": "float", "float64": "double"}.get(name, name)
    )
    if row.stored.kind == "O":
        array = np.array([b"a", b"\x00\xff", b""], object)
    else:
        array = np.arange(-1, 200, 67).astype(row.stored).reshape(-1, 1)
    return tensors.encode(array, row.enum, as_content=content and row.stored.kind != "O")


CORPUS = grpc_corpus([(name, _tensor(name, content=number % 2 == 1)) for number, name in enumerate(_DTYPES)])
PREDICTS = [call for call in CORPUS if call.target == _PREDICT]


class FakeModel:
    """A signature for each dtype, as the model `dtypes` has, and two inputs with a default as `serving_default`."""

    def __init__(self) -> None:
        self.signatures: dict[str, Any] = {}
        for row in tensors.DTYPES.values():
            name = {"float": "float32", "double": "float64"}.get(row.name, row.name)
            self.signatures[name] = self._signature({"x": row.enum})
        self.signatures["serving_default"] = self._signature({"a": types_pb2.DT_FLOAT, "b": types_pb2.DT_FLOAT})
        default = tensors.encode(np.ones(2, np.float32), types_pb2.DT_FLOAT)
        self.signatures["serving_default"].defaults["b"].CopyFrom(default)

    @staticmethod
    def _signature(inputs: dict[str, int]) -> Any:
        made = meta_graph_pb2.SignatureDef()
        for alias, enum in inputs.items():
            made.inputs[alias].name, made.inputs[alias].dtype = f"{alias}:0", enum
        for alias in ("total", "y"):
            made.outputs[alias].name, made.outputs[alias].dtype = f"{alias}:0", types_pb2.DT_FLOAT
        return made


class _Nothing(Reader):
    """Leaves everything to the library."""

    def read(self, payload: Any) -> None:
        return None


def _predictors(monkeypatch: pytest.MonkeyPatch) -> tuple[Predictor, Predictor]:
    by_hand = Predictor(FakeModel(), Identity("m", 7))  # type: ignore[arg-type]
    monkeypatch.setattr(predict, "Reader", _Nothing)
    return by_hand, Predictor(FakeModel(), Identity("m", 7))  # type: ignore[arg-type]


def _outcome(predictor: Predictor, payload: Any) -> Any:
    """What comes of a payload, comparable: what would be run, or the refusal."""
    try:
        plan = predictor.plan_payload(payload)
    except PoolError as error:
        return error.status
    assert plan.feeds is not None
    feeds = {
        name: (each.dtype, each.shape, each.tolist() if each.dtype.kind == "O" else each.tobytes())
        for name, each in plan.feeds.items()
    }
    return feeds, list(plan.fetches), plan.signatures


def _search(bodies: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=max(1, bodies // _BATCH),
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_predict_comes_to_the_same(monkeypatch: pytest.MonkeyPatch, fuzz_bodies: int) -> None:
    by_hand, by_library = _predictors(monkeypatch)

    @_search(fuzz_bodies)
    @example([Call(_PREDICT, b"\x12\x06\x0a\x01x\x12\x01\x08\x1a\x00")])  # a tensor that ends behind a tag
    @given(st.lists(spoiled(PREDICTS), min_size=_BATCH, max_size=_BATCH))
    def run(calls: Sequence[Call]) -> None:
        for call in calls:
            for payload in (call.body, memoryview(call.body)):
                assert _outcome(by_hand, payload) == _outcome(by_library, call.body), call

    run()


def test_right_requests_are_read_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the comparison compares something."""
    reader = Reader()
    assert [call for call in PREDICTS if reader.read(call.body) is None and b"half" not in call.body] == []
    by_hand, by_library = _predictors(monkeypatch)
    for call in PREDICTS:
        assert _outcome(by_hand, call.body) == _outcome(by_library, call.body)


def test_the_model_is_the_one_that_the_library_reads(fuzz_bodies: int) -> None:
    """GetModelStatusRequest has the field model_spec where all but MultiInference have it."""

    @_search(fuzz_bodies)
    @given(st.lists(spoiled(CORPUS), min_size=_BATCH, max_size=_BATCH))
    def run(calls: Sequence[Call]) -> None:
        for call in calls:
            _same_model(call.body)

    run()


def _same_model(body: bytes) -> None:
    try:
        request = GetModelStatusRequest.FromString(body)
    except DecodeError:
        with contextlib.suppress(MalformedRequest, TooManyFields):
            model_spec.read(body)  # what it passes over is for the worker to refuse
        return
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    expected = ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )
    assert model_spec.read(body) == (expected if request.HasField("model_spec") else None), body


def test_the_library_refuses_it_too() -> None:
    """The example above: by hand it is left to the library, which cannot read it."""
    body = b"\x12\x06\x0a\x01x\x12\x01\x08\x1a\x00"
    with pytest.raises(DecodeError):
        predict_pb2.PredictRequest.FromString(body)
    assert Reader().read(body) is None
