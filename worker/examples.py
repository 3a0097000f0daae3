"""The input of classify, regress and multi-inference: tf.Examples to the vector of their serialized forms. Pure.

TF Serving: servables/tensorflow/util.cc, InputToSerializedExampleTensor. Serialized protos that are put one after the
other parse as their merge, and of two features of one name the later wins: so the context goes before each example.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelpool.supervisor.wire.status import InvalidArgument

from .predict import Model


def serialized(request_input: Any) -> np.ndarray:
    """A tensorflow.serving.Input to a string tensor [batch]. Raises InvalidArgument when there is no example."""
    kind = request_input.WhichOneof("kind")
    listed = getattr(request_input, kind).examples if kind else ()
    if not listed:
        raise InvalidArgument("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
    vector = np.empty(len(listed), object)
    vector[:] = [context + example.SerializeToString() for example in listed]
    return vector


def run(
    model: Model, request_input: Any, input_name: str, output_names: Sequence[str]
) -> tuple[int, Mapping[str, np.ndarray]]:
    """Run on the examples: how many they are, and the outputs by tensor name. Raises PoolError.

    TF Serving: PerformOneShotTensorComputation.
    """
    vector = serialized(request_input)
    outputs = model.run({input_name: vector}, output_names)
    return len(vector), dict(zip(output_names, outputs, strict=True))
