"""Regress: tf.Examples to one number each. Pure but for the model; main thread of the worker.

TF Serving: servables/tensorflow/regressor.cc, the order of its checks included. The signature's method_name is not
checked, which is TF Serving's default: what TF2 exports always says predict.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import regression_pb2

from modelpool.supervisor.wire.status import InvalidArgument

from . import examples, request
from .model_spec import Identity, signature_key
from .predict import Model
from .tensors import array_dtype_name, shape_text

METHOD_NAME = "tensorflow/serving/regress"
_INPUTS = "inputs"
_OUTPUTS = "outputs"


class Regressor:
    """Regress on one loaded model."""

    def __init__(self, model: Model, identity: Identity) -> None:
        self._model = model
        self._identity = identity

    def grpc(self, payload: bytes) -> bytes:
        """A serialized RegressionRequest to a serialized RegressionResponse. Raises PoolError."""
        asked = request.parse(regression_pb2.RegressionRequest, payload)
        reply: bytes = self.respond(asked).SerializeToString()
        return reply

    def respond(self, asked: Any) -> Any:
        """A RegressionRequest to a RegressionResponse. Raises PoolError."""
        key = signature_key(asked.model_spec)
        signature = self._model.signatures.get(key)
        if signature is None:
            raise InvalidArgument(f"No signature was found with the name: {key}")
        input_name, output_names = endpoints(signature)
        count, outputs = examples.run(self._model, asked.input, input_name, output_names)
        response = regression_pb2.RegressionResponse()
        self._identity.fill(response.model_spec, key)
        fill_result(response.result, signature, count, outputs)
        return response


def endpoints(signature: Any) -> tuple[str, list[str]]:
    """The tensor to feed and the one to fetch (PreProcessRegression). Raises InvalidArgument."""
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise InvalidArgument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise InvalidArgument(f"No regression inputs found in SignatureDef: {signature}")
    if _OUTPUTS not in signature.outputs:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs[_INPUTS].name, [signature.outputs[_OUTPUTS].name]


def fill_result(result: Any, signature: Any, count: int, outputs: Mapping[str, np.ndarray]) -> None:
    """Fill a RegressionResult of `count` examples (PostProcessRegressionResult). Raises InvalidArgument.

    `outputs` are arrays by tensor name.
    """
    array = outputs[signature.outputs[_OUTPUTS].name]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise InvalidArgument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape_text(array)}"
        )
    if array.shape[0] != count:
        raise InvalidArgument(f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}")
    if array_dtype_name(array) != "DT_FLOAT":
        raise InvalidArgument(f"Expected output Tensor of DT_FLOAT.  Got: {array_dtype_name(array)}")
    result.regressions.extend([regression_pb2.Regression(value=value) for value in array.ravel().tolist()])
