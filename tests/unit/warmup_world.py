"""A servable that says what it was asked to run, for what warms models up and for what records their traffic."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from modelpool.supervisor.wire.status import (
    PoolError,
)
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2


def add_input(signature: Any, alias: str, dtype: int, shape: Sequence[int] | None) -> None:
    info = signature.inputs[alias]
    info.name, info.dtype = f"{alias}:0", dtype
    info.tensor_shape.unknown_rank = shape is None
    for size in shape or ():
        info.tensor_shape.dim.add().size = size


def add_output(signature: Any, alias: str, dtype: int = types_pb2.DT_FLOAT) -> None:
    signature.outputs[alias].name, signature.outputs[alias].dtype = f"{alias}:0", dtype


class FakeModel:
    """Each output is one zero; keeps what each run was fed and asked for."""

    def __init__(self, signatures: Mapping[str, Any]) -> None:
        self.signatures = signatures
        self.runs: list[tuple[Mapping[str, np.ndarray], list[str]]] = []
        self.error: PoolError | None = None

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.runs.append((feeds, list(fetches)))
        if self.error is not None:
            raise self.error
        return [np.zeros(1, np.float32) for _ in fetches]


def servable() -> FakeModel:
    """serving_default: x to y; examples: inputs to outputs."""
    predict, examples = meta_graph_pb2.SignatureDef(), meta_graph_pb2.SignatureDef()
    add_input(predict, "x", types_pb2.DT_FLOAT, [-1])
    add_output(predict, "y")
    add_input(examples, "inputs", types_pb2.DT_STRING, [-1])
    add_output(examples, "outputs")
    return FakeModel({"serving_default": predict, "examples": examples})


# -- replay ------------------------------------------------------------------------------------------------------
