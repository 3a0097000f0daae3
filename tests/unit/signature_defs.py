"""SignatureDefs of the fake models of unit tests."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Sequence
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2


def named(inputs: Sequence[str], outputs: Sequence[str], index: str = ":0") -> Any:
    """Each of the names means the tensor `<name><index>`; nothing is said of dtypes."""
    made = meta_graph_pb2.SignatureDef()
    for alias in inputs:
        made.inputs[alias].name = f"{alias}{index}"
    for alias in outputs:
        made.outputs[alias].name = f"{alias}{index}"
    return made


def texts_to_number(output: str) -> Any:
    """Strings as `inputs`, the tensor `in:0`, to floats as `output`, the tensor of that name."""
    made = meta_graph_pb2.SignatureDef()
    made.inputs["inputs"].name, made.inputs["inputs"].dtype = "in:0", types_pb2.DT_STRING
    made.outputs[output].name, made.outputs[output].dtype = f"{output}:0", types_pb2.DT_FLOAT
    return made
