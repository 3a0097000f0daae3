"""Classify: tf.Examples to labels and scores. Pure but for the model; main thread of the worker.

TF Serving: servables/tensorflow/classifier.cc, the order of its checks included. `READING` is what
`examples.ExamplesCall` makes the call of.
"""

from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2

from modelpool.supervisor.wire.status import Internal, InvalidArgument
from modelpool.supervisor.wire.tensors import array_dtype_name, shape_text

from . import rest_examples
from .examples import Outputs, Reading, signature_text

METHOD_NAME = "tensorflow/serving/classify"
_INPUTS = "inputs"
_CLASSES = "classes"
_SCORES = "scores"


def endpoints(signature: Any) -> tuple[str, list[str]]:
    """The tensor to feed and those to fetch (PreProcessClassification). Raises InvalidArgument."""
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise InvalidArgument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise InvalidArgument(f"No classification inputs found in SignatureDef: {signature_text(signature)}")
    fetched = [signature.outputs[key].name for key in (_CLASSES, _SCORES) if key in signature.outputs]
    if not fetched:
        raise InvalidArgument(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {signature_text(signature)}"
        )
    return signature.inputs[_INPUTS].name, fetched


def fill_result(result: Any, signature: Any, count: int, outputs: Outputs) -> None:
    """Fill a ClassificationResult of `count` examples (PostProcessClassificationResult). Raises PoolError.

    `outputs` are arrays by tensor name. Without classes the labels are "", without scores the scores are 0.
    """
    classes = _matrix(signature, outputs, _CLASSES, "DT_STRING", count)
    scores = _matrix(signature, outputs, _SCORES, "DT_FLOAT", count)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise InvalidArgument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    for row in range(count):
        labels = [] if classes is None else [_label(raw) for raw in classes[row]]
        numbers = [] if scores is None else scores[row].tolist()
        kinds = [
            classification_pb2.Class(label=labels[i] if labels else "", score=numbers[i] if numbers else 0.0)
            for i in range(max(len(labels), len(numbers)))
        ]
        result.classifications.add().classes.extend(kinds)


def _matrix(signature: Any, outputs: Outputs, alias: str, dtype: str, count: int) -> np.ndarray | None:
    """One output, checked; None where the signature has none of that alias."""
    if alias not in signature.outputs:
        return None
    array = outputs[signature.outputs[alias].name]
    if array.ndim != 2:
        raise InvalidArgument(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array)}")
    if array_dtype_name(array) != dtype:
        raise InvalidArgument(f"Expected {alias} Tensor of {dtype}. Got: {array_dtype_name(array)}")
    if array.shape[0] != count:
        raise InvalidArgument(f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}")
    return array


def _label(raw: Any) -> str:
    """A proto3 string cannot carry other bytes than UTF-8; stock clients refuse such a reply as a whole."""
    try:
        return raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError as error:
        raise Internal(f"Expected class labels in UTF-8. Got: {raw[:64]!r}") from error


READING = Reading(
    METHOD_NAME,
    "classification",
    classification_pb2.ClassificationRequest,
    classification_pb2.ClassificationResponse,
    endpoints,
    fill_result,
    rest_examples.classification_json,
)
