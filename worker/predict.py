"""Predict: a request's bytes to the reply's bytes, gRPC and REST. Main thread of the worker.

Follows TF Serving's `servables/tensorflow/predict_util.cc` (PreProcessPrediction, PostProcessPredictionResult), the
order of its checks included.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tensorflow_serving.apis import predict_pb2

from modelpool.supervisor.wire.status import FailedPrecondition, InvalidArgument

from . import request, rest_json, tensors
from .model_spec import DEFAULT_SIGNATURE, Identity, signature_key


class Model(Protocol):
    """What is needed of a loaded model."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """SignatureDef by key."""

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Tensor names to arrays in, fetched tensors out. Raises PoolError."""


class Predictor:
    """Predict on one loaded model."""

    def __init__(self, model: Model, identity: Identity) -> None:
        self._model = model
        self._identity = identity

    def grpc(self, payload: bytes) -> bytes:
        """A serialized PredictRequest to a serialized PredictResponse. Raises PoolError."""
        reply: bytes = self.respond(request.parse(predict_pb2.PredictRequest, payload)).SerializeToString()
        return reply

    def respond(self, asked: Any) -> Any:
        """A PredictRequest to a PredictResponse. Raises PoolError."""
        key = signature_key(asked.model_spec)
        signature = self._model.signatures.get(key)
        if signature is None:
            raise FailedPrecondition(f'Serving signature key "{key}" not found.')
        feeds = _feeds(signature, asked.inputs)
        aliases = _output_aliases(signature, asked.output_filter)
        outputs = self._model.run(feeds, [signature.outputs[alias].name for alias in aliases])
        response = predict_pb2.PredictResponse()
        self._identity.fill(response.model_spec, key)
        for alias, array in zip(aliases, outputs, strict=True):
            response.outputs[alias].CopyFrom(tensors.encode(array, signature.outputs[alias].dtype))
        return response

    def rest(self, payload: bytes) -> bytes:
        """A REST predict body to the JSON reply. Raises PoolError. TF Serving: http_rest_api_handler.cc."""
        _, signature, arrays, layout = self._read_body(payload)
        feeds = {signature.inputs[alias].name: array for alias, array in arrays.items()}
        aliases = sorted(signature.outputs)
        outputs = self._model.run(feeds, [signature.outputs[alias].name for alias in aliases])
        named = {alias: (signature.outputs[alias].dtype, array) for alias, array in zip(aliases, outputs, strict=True)}
        return rest_json.reply(named, layout)

    def request_of_body(self, payload: bytes) -> Any:
        """The PredictRequest that asks what a REST predict body asks. Raises PoolError. Any thread."""
        key, signature, arrays, _ = self._read_body(payload)
        asked = predict_pb2.PredictRequest()
        asked.model_spec.name = self._identity.name
        asked.model_spec.signature_name = key
        for alias, array in arrays.items():
            asked.inputs[alias].CopyFrom(tensors.encode(array, signature.inputs[alias].dtype))
        return asked

    def _read_body(self, payload: bytes) -> tuple[str, Any, dict[str, np.ndarray], rest_json.Layout]:
        """The key of the signature, the signature, the tensors by alias, and the layout of a REST predict body."""
        body = rest_json.parse(payload)
        key = body.signature_name or DEFAULT_SIGNATURE
        signature = self._model.signatures.get(key)
        if signature is None:
            raise InvalidArgument(f'Serving signature name: "{key}" not found in signature def')
        arrays, layout = body.tensors({alias: info.dtype for alias, info in signature.inputs.items()})
        return key, signature, arrays, layout


def _feeds(signature: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensor names to arrays: what was sent, and the signature's defaults for what was not."""
    _check_count(signature, inputs)
    feeds: dict[str, np.ndarray] = {}
    for alias, info in signature.inputs.items():
        if alias in inputs:
            feeds[info.name] = tensors.decode(alias, inputs[alias])
        elif alias in signature.defaults:
            feeds[info.name] = tensors.decode(alias, signature.defaults[alias])
        else:
            raise InvalidArgument(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value "
                f"provided. Inputs expected to be in the set {{{','.join(sorted(signature.inputs))}}}."
            )
    if unknown := sorted(set(inputs) - set(signature.inputs)):
        raise InvalidArgument(f"Inputs contains invalid name. Not in the signature: {{{','.join(unknown)}}}.")
    return feeds


def _check_count(signature: Any, inputs: Mapping[str, Any]) -> None:
    sent, expected = set(inputs), set(signature.inputs)
    if len(sent) > len(expected) or (len(sent) < len(expected) and not signature.defaults):
        raise InvalidArgument(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_names(sent)}) != "
            f"len({_names(expected)}). Sent extra: {_names(sent - expected)}. "
            f"Missing but required: {_names(expected - sent - set(signature.defaults))}."
        )


def _names(names: set[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _output_aliases(signature: Any, output_filter: Sequence[str]) -> list[str]:
    if not output_filter:
        return sorted(signature.outputs)
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise InvalidArgument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_names(set(signature.outputs))}."
            )
        if alias in seen:
            raise InvalidArgument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter)
