"""Predict: a request's bytes to the reply's bytes, gRPC and REST. Pure but for the model; main thread of the worker.

Follows TF Serving's `servables/tensorflow/predict_util.cc` (PreProcessPrediction, PostProcessPredictionResult), the
order of its checks included.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tensorflow_serving.apis import predict_pb2

from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.parts import Payload, gathered
from modelpool.supervisor.wire.status import FailedPrecondition, Internal, InvalidArgument

from . import reply_bytes, rest_json
from .model_spec import DEFAULT_SIGNATURE, Identity, signature_key
from .plan import Model, Plan
from .predict_forms import Forms
from .predict_wire import RawTensor, Reader, Writer

_METHOD_NAMES = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """One signature, its maps as dicts: a proto's are slow. By alias."""

    keys: tuple[str]
    signature: Any
    tensors: Mapping[str, str]
    dtypes: Mapping[str, int]
    outputs: Mapping[str, str]
    all_outputs: tuple[str, ...]
    all_fetches: tuple[str, ...]
    writer: Writer

    def fetches(self, aliases: tuple[str, ...]) -> Sequence[str]:
        return self.all_fetches if aliases is self.all_outputs else [self.outputs[alias] for alias in aliases]


class Predictor:
    """Predict on one loaded model. It remembers what repeats, and has no lock: all of it, the plans' `finish` included,
    is the main thread's, but for what says otherwise.
    """

    def __init__(
        self, model: Model, identity: Identity, *, check_method_names: bool = False, tensor_content: bool = False
    ) -> None:
        """`check_method_names` and `tensor_content` as in WorkerSpec."""
        self._model = model
        self._identity = identity
        self._check_method_names = check_method_names
        self._tensor_content = tensor_content
        self._reader = Reader()
        self.forms = Forms()
        """What is known of this model's requests."""
        self._endpoints: dict[str, _Endpoints] = {}

    def grpc(self, payload: bytes) -> bytes:
        """A serialized PredictRequest to a serialized PredictResponse. Raises PoolError."""
        return self.plan_payload(payload).answer(self._model)

    def rest(self, payload: bytes) -> bytes:
        """A REST predict body to the JSON reply. Raises PoolError."""
        return self.plan_body(payload).answer(self._model)

    def plan_payload(self, payload: bytes) -> Plan:
        """A serialized PredictRequest, to become a serialized PredictResponse. Raises PoolError."""
        plan = self.forms.read(payload)
        if plan is not None:
            return plan
        raw = self._reader.read(payload)
        if raw is None:
            asked = self.request_of_payload(payload)
            ends = self._ends(signature_key(asked.model_spec))
            feeds, aliases = _read(ends, asked.inputs, asked.output_filter, tensors.decode)
        else:
            ends = self._ends(raw.signature_name or DEFAULT_SIGNATURE)
            feeds, aliases = _read(ends, raw.inputs, raw.output_filter, _decode_raw)
        plan = Plan(
            feeds,
            ends.fetches(aliases),
            partial(self._write, ends, aliases),
            ends.keys,
            partial(ends.writer.write_rows, aliases),
        )
        self.forms.learn(payload, plan)
        return plan

    def request_of_payload(self, payload: bytes) -> Any:
        """The PredictRequest that was sent by gRPC. Raises PoolError. Any thread."""
        return parse(predict_pb2.PredictRequest, payload)

    def respond(self, asked: Any) -> Any:
        """A PredictRequest to a PredictResponse. Raises PoolError."""
        ends = self._ends(signature_key(asked.model_spec))
        feeds, aliases = _read(ends, asked.inputs, asked.output_filter, tensors.decode)
        outputs = self._model.run(feeds, ends.fetches(aliases))
        return predict_pb2.PredictResponse.FromString(bytes(self._write(ends, aliases, outputs)))

    def _ends(self, key: str) -> _Endpoints:
        """Raises FailedPrecondition, and Internal for a method name that may not be."""
        known = self._endpoints.get(key)
        if known is None:
            signature = self._model.signatures.get(key)
            if signature is None:
                raise FailedPrecondition(f'Serving signature key "{key}" not found.')
            self._check_method_name(signature)
            known = self._endpoints[key] = self._ends_of(key, signature)
        return known

    def _ends_of(self, key: str, signature: Any) -> _Endpoints:
        response = predict_pb2.PredictResponse()
        self._identity.fill(response.model_spec, key)
        outputs = {alias: signature.outputs[alias] for alias in sorted(signature.outputs)}
        return _Endpoints(
            (key,),
            signature,
            {alias: info.name for alias, info in signature.inputs.items()},
            {alias: info.dtype for alias, info in signature.inputs.items()},
            {alias: info.name for alias, info in outputs.items()},
            tuple(outputs),
            tuple(info.name for info in outputs.values()),
            Writer(
                response.SerializeToString(),
                {alias: info.dtype for alias, info in outputs.items()},
                as_content=self._tensor_content,
            ),
        )

    def _write(self, ends: _Endpoints, aliases: tuple[str, ...], outputs: Sequence[np.ndarray]) -> Payload:
        small = ends.writer.write_again(aliases, outputs)
        if small is not None and len(small) <= reply_bytes.MAX_MESSAGE_BYTES:
            return small
        # Before any memory is spent on it.
        if sum(_least_bytes(array, self._tensor_content) for array in outputs) > reply_bytes.MAX_MESSAGE_BYTES:
            raise reply_bytes.too_large(predict_pb2.PredictResponse.DESCRIPTOR.full_name)
        pieces = ends.writer.write(aliases, outputs)
        if sum(map(len, pieces)) > reply_bytes.MAX_MESSAGE_BYTES:
            raise reply_bytes.too_large(predict_pb2.PredictResponse.DESCRIPTOR.full_name)
        return gathered(pieces)

    def plan_body(self, payload: bytes) -> Plan:
        """A REST predict body, to become the JSON reply. Raises PoolError. TF Serving: http_rest_api_handler.cc."""
        key, signature, arrays, layout = self._read_body(payload)
        self._check_method_name(signature)
        feeds = _feeds(signature, arrays, lambda _, array: array)
        aliases = sorted(signature.outputs)
        fetches = [signature.outputs[alias].name for alias in aliases]
        return Plan(feeds, fetches, partial(_json, signature, aliases, layout), (key,))

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


def _decode_raw(alias: str, tensor: RawTensor) -> np.ndarray:
    return tensor.decoded(alias)


def _read(
    ends: _Endpoints,
    inputs: Mapping[str, Any],
    output_filter: Sequence[str],
    decode: Callable[[str, Any], np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What to feed, by tensor name, and the aliases of the outputs. The order of the checks is TF Serving's."""
    if len(inputs) == len(ends.tensors) and all(alias in inputs for alias in ends.tensors):
        feeds = {name: decode(alias, inputs[alias]) for alias, name in ends.tensors.items()}
    else:
        feeds = _feeds(ends.signature, inputs, decode)
    aliases = tuple(_output_aliases(ends.signature, output_filter)) if output_filter else ends.all_outputs
    for alias in inputs:
        if inputs[alias].dtype != ends.dtypes[alias]:
            _check_dtypes(ends.signature, inputs)
    return feeds, aliases


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
