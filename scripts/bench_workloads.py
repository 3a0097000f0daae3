"""What the benches ask: for each workload its model, the one request, and whether an answer is right.

Requests are made from formulas, so that they are the same everywhere; what the answers must be follows from the same
formulas, or was worked out when the model was built (`bench_model_builder`). Imports no TensorFlow.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import bench_inputs
import demo_client
import numpy as np
from bench_http2 import MESSAGE_HEAD
from bench_inputs import HALF_PLUS_TWO
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

PREDICT = "/tensorflow.serving.PredictionService/Predict"

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Workload:
    """`expected` and `read` give what an answer must be and what one is, as arrays; `rest`: over REST, as JSON.

    Without `read` an answer is that of Predict.
    """

    name: str
    model: str
    request: Callable[[], bytes]
    expected: Callable[[], Any]
    rest: bool = False
    what: str = ""
    method: str = PREDICT
    read: Callable[[bytes], Any] | None = None

    @property
    def path(self) -> str:
        return f"/v1/models/{self.model}:predict" if self.rest else self.method

    def is_right(self, answer: bytes) -> bool:
        """Whether an answer, as `bench_load` gives it, holds the values it must."""
        return self.is_right_message(answer if self.rest else answer[MESSAGE_HEAD.size :])

    def is_right_message(self, message: bytes) -> bool:
        """The same for a serialized PredictResponse, or for the body of a REST answer."""
        try:
            read = self.read or (_rest_values if self.rest else _grpc_values)
            got = read(message)
        except ValueError:
            return False
        wanted = self.expected()
        if wanted.dtype.kind == "S":
            return got.dtype.kind == "S" and bool(np.array_equal(got, wanted))
        return got.shape == wanted.shape and bool(np.allclose(got, wanted, rtol=_TOLERANCE, atol=_TOLERANCE))


def _grpc_values(message: bytes) -> Any:
    """The one output of a PredictResponse. Raises ValueError."""
    try:
        reply = predict_pb2.PredictResponse.FromString(message)
        (proto,) = reply.outputs.values()
    except (DecodeError, ValueError) as error:
        raise ValueError(f"not a PredictResponse with one output: {error}") from error
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype == types_pb2.DT_STRING:
        return np.asarray(list(proto.string_val), dtype=np.bytes_).reshape(shape)
    return np.asarray(demo_client.values(proto), np.float32)


def _rest_values(body: bytes) -> Any:
    return np.asarray(json.loads(body)["predictions"], np.float32)


# -- requests ----------------------------------------------------------------------------------------------------


def _predict(model: str, proto: Any) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(proto)
    raw: bytes = request.SerializeToString()
    return raw


def _packed(array: Any) -> Any:
    """A float32 TensorProto as TensorFlow's clients make it of an array: its bytes as they are."""
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=array.astype("<f4").tobytes())
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _json_picture() -> bytes:
    instances = [
        [[[round(float(v), 6) for v in pixel] for pixel in row] for row in each] for each in bench_inputs.picture()
    ]
    return json.dumps({"instances": instances}, separators=(",", ":")).encode("ascii")


# -- answers -----------------------------------------------------------------------------------------------------


def _from_build(model: str) -> Callable[[], Any]:
    @cache
    def expected() -> Any:
        return np.asarray(
            json.loads((bench_inputs.BUILD / model / bench_inputs.EXPECTED).read_text("utf-8")), np.float32
        )

    return expected


@cache
def _means() -> Any:
    return bench_inputs.picture().astype(np.float64).mean(axis=(1, 2)).astype(np.float32)


def _tiny_answer() -> Any:
    return bench_inputs.numbers() / 2 + 2


def _upper() -> Any:
    return np.asarray([text.upper().encode() for text in bench_inputs.words().tolist()], dtype=np.bytes_)


_ALL = (
    Workload(
        "tiny",
        HALF_PLUS_TWO,
        lambda: _predict(HALF_PLUS_TWO, demo_client.tensor(bench_inputs.numbers())),
        _tiny_answer,
        what="half_plus_two of 3 floats",
    ),
    Workload(
        "mlp", "mlp", lambda: _predict("mlp", _packed(bench_inputs.features())), _from_build("mlp"), what="15-512-512-1"
    ),
    Workload(
        "image",
        "image",
        lambda: _predict("image", _packed(bench_inputs.picture())),
        _means,
        what="600 kB in, 3 floats out",
    ),
    Workload(
        "conv",
        "conv",
        lambda: _predict("conv", _packed(bench_inputs.picture(bench_inputs.CONV_PICTURE))),
        _from_build("conv"),
        what="10-30 ms of convolutions",
    ),
    Workload(
        "string",
        "string",
        lambda: _predict("string", demo_client.tensor(bench_inputs.words())),
        _upper,
        what="16 strings in and out",
    ),
    Workload("json-image", "image", _json_picture, _means, rest=True, what="150,528 floats as JSON, REST"),
)
WORKLOADS = {each.name: each for each in _ALL}


# -- a request that no worker sees, for the profile --------------------------------------------------------------


def _status_request() -> bytes:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = HALF_PLUS_TWO
    raw: bytes = request.SerializeToString()
    return raw


def _states(message: bytes) -> Any:
    try:
        reply = get_model_status_pb2.GetModelStatusResponse.FromString(message)
    except DecodeError as error:
        raise ValueError(f"not a GetModelStatusResponse: {error}") from error
    return np.asarray([each.state for each in reply.model_version_status], np.float32)


def _available() -> Any:
    return np.asarray([get_model_status_pb2.ModelVersionStatus.AVAILABLE], np.float32)


STATUS = Workload(
    "status",
    HALF_PLUS_TWO,
    _status_request,
    _available,
    what="GetModelStatus, which the frontend answers",
    method="/tensorflow.serving.ModelService/GetModelStatus",
    read=_states,
)
ASKABLE = {**WORKLOADS, STATUS.name: STATUS}
