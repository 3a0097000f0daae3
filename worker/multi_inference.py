"""Multi-inference: one run on tf.Examples, read by several classify and regress signatures of one input tensor.

Pure but for the model; main thread of the worker. TF Serving: servables/tensorflow/multi_inference.cc, the order of
its checks included. The method is the task's; the signature's own method_name is not checked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_serving.apis import inference_pb2

from modelpool.supervisor.wire.status import InvalidArgument, Unimplemented

from . import classify, examples, regress, request
from .model_spec import Identity, signature_key
from .predict import Model


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one task's method reads its signature, and which field of an InferenceResult it fills."""

    endpoints: Callable[[Any], tuple[str, list[str]]]
    fill_result: Callable[[Any, Any, int, Mapping[str, np.ndarray]], None]
    field: str


_READINGS: Mapping[str, _Reading] = {
    classify.METHOD_NAME: _Reading(classify.endpoints, classify.fill_result, "classification_result"),
    regress.METHOD_NAME: _Reading(regress.endpoints, regress.fill_result, "regression_result"),
}


class MultiInference:
    """MultiInference on one loaded model."""

    def __init__(self, model: Model, identity: Identity) -> None:
        self._model = model
        self._identity = identity

    def grpc(self, payload: bytes) -> bytes:
        """A serialized MultiInferenceRequest to a serialized MultiInferenceResponse. Raises PoolError."""
        asked = request.parse(inference_pb2.MultiInferenceRequest, payload)
        reply: bytes = self.respond(asked).SerializeToString()
        return reply

    def respond(self, asked: Any) -> Any:
        """A MultiInferenceRequest to a MultiInferenceResponse with results in the tasks' order. Raises PoolError."""
        input_name, output_names = self._endpoints(asked.tasks)
        count, outputs = examples.run(self._model, asked.input, input_name, output_names)
        response = inference_pb2.MultiInferenceResponse()
        for task in asked.tasks:
            key = signature_key(task.model_spec)
            reading = _READINGS[task.method_name]
            result = response.results.add()
            self._identity.fill(result.model_spec, key)
            filled = getattr(result, reading.field)
            filled.SetInParent()
            reading.fill_result(filled, self._model.signatures[key], count, outputs)
        return response

    def _endpoints(self, tasks: Any) -> tuple[str, list[str]]:
        """The one tensor to feed, and all to fetch. Raises InvalidArgument, Unimplemented."""
        if not tasks:
            raise InvalidArgument("ModelSpec has no name specified.")
        keys: set[str] = set()
        input_name = ""
        fetched: set[str] = set()
        for task in tasks:
            _check_name(task.model_spec.name, tasks[0].model_spec.name)
            key = signature_key(task.model_spec)
            if key in keys:
                raise InvalidArgument(f"Duplicate evaluation of signature: {key}")
            keys.add(key)
            task_input, task_outputs = self._task_endpoints(key, task.method_name)
            if input_name and task_input != input_name:
                raise InvalidArgument("Input tensor must be the same for all Signatures.")
            input_name = task_input
            fetched.update(task_outputs)
        return input_name, sorted(fetched)

    def _task_endpoints(self, key: str, method_name: str) -> tuple[str, list[str]]:
        signature = self._model.signatures.get(key)
        if signature is None:
            raise InvalidArgument(f"Requested signature not found in model graph: {key}")
        reading = _READINGS.get(method_name)
        if reading is None:
            raise Unimplemented(f"Unsupported signature method_name: {method_name}")
        return reading.endpoints(signature)


def _check_name(name: str, first: str) -> None:
    if not name:
        raise InvalidArgument("Found ModelSpec with an empty model name.")
    if name != first:
        raise InvalidArgument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
