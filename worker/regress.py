"""Regress: tf.Examples to one number each. Pure but for the model; main thread of the worker.

TF Serving: servables/tensorflow/regressor.cc, the order of its checks included. `READING` is what
`examples.ExamplesCall` makes the call of.
"""

from typing import Any

from tensorflow_serving.apis import regression_pb2

from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.tensors import array_dtype_name, shape_text

from . import rest_examples
from .examples import Outputs, Reading, signature_text

METHOD_NAME = "tensorflow/serving/regress"
_INPUTS = "inputs"
_OUTPUTS = "outputs"


def endpoints(signature: Any) -> tuple[str, list[str]]:
    """The tensor to feed and the one to fetch (PreProcessRegression). Raises InvalidArgument."""
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise InvalidArgument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise InvalidArgument(f"No regression inputs found in SignatureDef: {signature_text(signature)}")
    if _OUTPUTS not in signature.outputs:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {signature_text(signature)}")
    return signature.inputs[_INPUTS].name, [signature.outputs[_OUTPUTS].name]


def fill_result(result: Any, signature: Any, count: int, outputs: Outputs) -> None:
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


READING = Reading(
    METHOD_NAME,
    "regression",
    regression_pb2.RegressionRequest,
    regression_pb2.RegressionResponse,
    endpoints,
    fill_result,
    rest_examples.regression_json,
)
