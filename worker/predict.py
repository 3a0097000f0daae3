"""Predict: a request's bytes to the reply's bytes, gRPC and REST. Pure but for the model; any thread.

Follows TF Serving's `servables/tensorflow/predict_util.cc` (PreProcessPrediction, PostProcessPredictionResult), the
order of its checks included.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tensorflow_serving.apis import predict_pb2

from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import FailedPrecondition, Internal, InvalidArgument

from . import request, rest_json
from .model_spec import DEFAULT_SIGNATURE, Identity, signature_key
from .plan import Model, Plan

_METHOD_NAMES = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


class Predictor:
    """Predict on one loaded model."""

    def __init__(
        self, model: Model, identity: Identity, *, check_method_names: bool = False, tensor_content: bool = False
    ) -> None:
        """`check_method_names` and `tensor_content` as in WorkerSpec."""
        self._model = model
        self._identity = identity
        self._check_method_names = check_method_names
        self._tensor_content = tensor_content

    def grpc(self, payload: bytes) -> bytes:
        """A serialized PredictRequest to a serialized PredictResponse. Raises PoolError."""
        return self.plan_payload(payload).answer(self._model)

    def rest(self, payload: bytes) -> bytes:
        """A REST predict body to the JSON reply. Raises PoolError."""
        return self.plan_body(payload).answer(self._model)

    def plan_payload(self, payload: bytes) -> Plan:
        """A serialized PredictRequest, to become a serialized PredictResponse. Raises PoolError."""
        asked = self.request_of_payload(payload)
        key, aliases, feeds, fetches = self._read_request(asked)

        def finish(outputs: list[np.ndarray]) -> bytes:
            return request.serialize(self._response(key, aliases, outputs))

        return Plan(feeds, fetches, finish)

    def request_of_payload(self, payload: bytes) -> Any:
        """The PredictRequest that was sent by gRPC. Raises PoolError. Any thread."""
        return request.parse(predict_pb2.PredictRequest, payload)

    def respond(self, asked: Any) -> Any:
        """A PredictRequest to a PredictResponse. Raises PoolError."""
        key, aliases, feeds, fetches = self._read_request(asked)
        return self._response(key, aliases, self._model.run(feeds, fetches))

    def _read_request(self, asked: Any) -> tuple[str, list[str], dict[str, np.ndarray], list[str]]:
        """The key of the signature, the outputs' aliases, what to feed and what to fetch."""
        key = signature_key(asked.model_spec)
        signature = self._model.signatures.get(key)
        if signature is None:
            raise FailedPrecondition(f'Serving signature key "{key}" not found.')
        self._check_method_name(signature)
        feeds = _feeds(signature, asked.inputs, tensors.decode)
        aliases = _output_aliases(signature, asked.output_filter)
        _check_dtypes(signature, asked.inputs)
        return key, aliases, feeds, [signature.outputs[alias].name for alias in aliases]

    def _response(self, key: str, aliases: Sequence[str], outputs: Sequence[np.ndarray]) -> Any:
        signature = self._model.signatures[key]
        # Before any memory is spent on it.
        if sum(_least_bytes(array, self._tensor_content) for array in outputs) > request.MAX_MESSAGE_BYTES:
            raise request.too_large(predict_pb2.PredictResponse.DESCRIPTOR.full_name)
        response = predict_pb2.PredictResponse()
        self._identity.fill(response.model_spec, key)
        for alias, array in zip(aliases, outputs, strict=True):
            proto = tensors.encode(array, signature.outputs[alias].dtype, as_content=self._tensor_content)
            response.outputs[alias].CopyFrom(proto)
        return response

    def plan_body(self, payload: bytes) -> Plan:
        """A REST predict body, to become the JSON reply. Raises PoolError. TF Serving: http_rest_api_handler.cc."""
        _, signature, arrays, layout = self._read_body(payload)
        self._check_method_name(signature)
        feeds = _feeds(signature, arrays, lambda _, array: array)
        aliases = sorted(signature.outputs)
        fetches = [signature.outputs[alias].name for alias in aliases]
        return Plan(feeds, fetches, partial(_json, signature, aliases, layout))

    def request_of_body(self, payload: bytes) -> Any:
        """The PredictRequest that asks what a REST predict body asks. Raises PoolError. Any thread."""
        key, signature, arrays, _ = self._read_body(payload)
        asked = predict_pb2.PredictRequest()
        asked.model_spec.name = self._identity.name
        asked.model_spec.signature_name = key
        for alias, array in arrays.items():
            asked.inputs[alias].CopyFrom(tensors.encode(array, signature.inputs[alias].dtype))
        return asked

    def _check_method_name(self, signature: Any) -> None:
        """predict_util.cc VerifySignature. Raises Internal."""
        if self._check_method_names and signature.method_name not in _METHOD_NAMES:
            raise Internal(
                f"Expected prediction signature method_name to be one of {{{', '.join(_METHOD_NAMES)}}}. "
                f"Was: {signature.method_name}"
            )

    def _read_body(self, payload: bytes) -> tuple[str, Any, dict[str, np.ndarray], rest_json.Layout]:
        """The key of the signature, the signature, the tensors by alias, and the layout of a REST predict body."""
        body = rest_json.parse(payload)
        key = body.signature_name or DEFAULT_SIGNATURE
        signature = self._model.signatures.get(key)
        if signature is None:
            raise InvalidArgument(f'Serving signature name: "{key}" not found in signature def')
        # Sorted: a proto's map has another order in each process.
        arrays, layout = body.tensors({alias: signature.inputs[alias].dtype for alias in sorted(signature.inputs)})
        return key, signature, arrays, layout


def _json(signature: Any, aliases: Sequence[str], layout: rest_json.Layout, outputs: Sequence[np.ndarray]) -> bytes:
    named = {alias: (signature.outputs[alias].dtype, array) for alias, array in zip(aliases, outputs, strict=True)}
    return rest_json.reply(named, layout)


def _least_bytes(array: np.ndarray, as_content: bool) -> int:
    """What the array takes in a message at the least: a byte for each element that is a varint or a string."""
    as_it_is = as_content or (array.dtype.kind in "fc" and array.itemsize >= 4)
    return array.nbytes if as_it_is and array.dtype.kind != "O" else array.size


def _feeds(
    signature: Any, inputs: Mapping[str, Any], decode: Callable[[str, Any], np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensor names to arrays: what was sent, by `decode`, and the signature's defaults for what was not."""
    _check_count(signature, inputs)
    feeds: dict[str, np.ndarray] = {}
    for alias, info in signature.inputs.items():
        if alias in inputs:
            feeds[info.name] = decode(alias, inputs[alias])
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


def _check_dtypes(signature: Any, inputs: Mapping[str, Any]) -> None:
    """As Session::Run does, whose text counts the feeds in the order of their names; our callable's text has less.

    Raises InvalidArgument. TensorFlow: common_runtime/function.cc, CallFrame::SetArgs.
    """
    if all(proto.dtype == signature.inputs[alias].dtype for alias, proto in inputs.items()):
        return
    names = sorted(info.name for info in signature.inputs.values())
    for alias, proto in sorted(inputs.items(), key=lambda item: str(signature.inputs[item[0]].name)):
        info = signature.inputs[alias]
        # Signatures made by hand may name no dtype; what the graph says of it is then for the callable to find out.
        if info.dtype in tensors.DTYPES and proto.dtype != info.dtype:
            raise InvalidArgument(
                f"Expects arg[{names.index(info.name)}] to be {tensors.dtype_name(info.dtype)} but "
                f"{tensors.dtype_name(proto.dtype)} is provided"
            )


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
