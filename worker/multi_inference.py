"""Multi-inference: one run on tf.Examples, read by several classify and regress signatures of one input tensor.

Pure but for the model; main thread of the worker. TF Serving: servables/tensorflow/multi_inference.cc, the order of
its checks included. The method is the task's; the signature's own method_name must be the same only where
`check_method_names` says so, as PreProcessClassification and PreProcessRegression do for it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import inference_pb2

from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.status import InvalidArgument, Unimplemented

from . import classify, examples, regress, reply_bytes
from .examples import Reading
from .model_spec import Identity, signature_key
from .plan import Model, Plan

_READINGS: Mapping[str, Reading] = {reading.method_name: reading for reading in (classify.READING, regress.READING)}
# The field of an InferenceResult that each method fills.
_FIELDS: Mapping[str, str] = {
    classify.METHOD_NAME: "classification_result",
    regress.METHOD_NAME: "regression_result",
}


class MultiInference:
    """MultiInference on one loaded model."""

    def __init__(self, model: Model, identity: Identity, *, check_method_names: bool = False) -> None:
        self._model = model
        self._identity = identity
        self._check_method_names = check_method_names

    def grpc(self, payload: bytes) -> bytes:
        """A serialized MultiInferenceRequest to a serialized MultiInferenceResponse. Raises PoolError."""
        return self.plan_payload(payload).answer(self._model)

    def plan_payload(self, payload: bytes) -> Plan:
        """A serialized MultiInferenceRequest, to become a serialized MultiInferenceResponse. Raises PoolError."""
        asked = self.request_of_payload(payload)
        input_name, output_names = self._endpoints(asked.tasks)
        vector = examples.serialized(asked.input)

        def finish(outputs: list[np.ndarray]) -> bytes:
            named = dict(zip(output_names, outputs, strict=True))
            return reply_bytes.serialize(self._response(asked.tasks, len(vector), named))

        keys = tuple(signature_key(task.model_spec) for task in asked.tasks)
        return Plan({input_name: vector}, output_names, finish, keys)

    def request_of_payload(self, payload: bytes) -> Any:
        """The request that was sent by gRPC. Raises PoolError. Any thread."""
        return parse(inference_pb2.MultiInferenceRequest, payload)

    def respond(self, asked: Any) -> Any:
        """A MultiInferenceRequest to a MultiInferenceResponse with results in the tasks' order. Raises PoolError."""
        input_name, output_names = self._endpoints(asked.tasks)
        vector = examples.serialized(asked.input)
        outputs = self._model.run({input_name: vector}, output_names)
        return self._response(asked.tasks, len(vector), dict(zip(output_names, outputs, strict=True)))

    def _response(self, tasks: Any, count: int, outputs: examples.Outputs) -> Any:
        response = inference_pb2.MultiInferenceResponse()
        for task in tasks:
            key = signature_key(task.model_spec)
            reading = _READINGS[task.method_name]
            result = response.results.add()
            self._identity.fill(result.model_spec, key)
            filled = getattr(result, _FIELDS[task.method_name])
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
        if self._check_method_names:
            reading.check_method_name(signature)
        return reading.endpoints(signature)


def _check_name(name: str, first: str) -> None:
    if not name:
        raise InvalidArgument("Found ModelSpec with an empty model name.")
    if name != first:
        raise InvalidArgument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
