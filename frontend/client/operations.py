"""What a client does, as steps: which requests an operation makes, and what it makes of the replies.

Each operation is a generator of `retry.Send` and `retry.Wait` steps, which returns the result. The object keeps the
signatures of models it has asked for, until a reply comes from another version or a request does not fit. Knows no
gRPC channel; one object may be used by any number of threads.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire.status import Code, PoolError

from . import examples as tf_examples
from . import inputs as tensor_inputs
from . import protos
from .errors import CallError, InputError, Internal, InvalidArgument, call_error
from .model_spec import ModelSpec
from .protos import tensors
from .results import Class, ModelMetadata, Prediction, Signature, VersionStatus
from .retry import Deadline, Method, RetryPolicy, Steps, send
from .signatures import DEFAULT_SIGNATURE, model_metadata, version_statuses

Array = npt.NDArray[Any]

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"
_PREDICT = Method(f"{_PREDICTION}Predict", protos.PredictResponse)
_CLASSIFY = Method(f"{_PREDICTION}Classify", protos.ClassificationResponse)
_REGRESS = Method(f"{_PREDICTION}Regress", protos.RegressionResponse)
_MULTI_INFERENCE = Method(f"{_PREDICTION}MultiInference", protos.MultiInferenceResponse)
_METADATA = Method(f"{_PREDICTION}GetModelMetadata", protos.GetModelMetadataResponse)
_STATUS = Method(f"{_MODEL}GetModelStatus", protos.GetModelStatusResponse)
_RELOAD = Method(f"{_MODEL}HandleReloadConfigRequest", protos.ReloadConfigResponse, repeatable=False)

# The model may answer all the same when its metadata cannot be had for one of these.
_NO_METADATA = frozenset(
    {Code.UNIMPLEMENTED, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.PERMISSION_DENIED}
    | {Code.INTERNAL, Code.UNKNOWN}
)


@dataclass(frozen=True, slots=True)
class Operations:
    """`timeout_s` is for operations that are given none."""

    timeout_s: float
    policy: RetryPolicy
    clock: Callable[[], float]
    _known: dict[ModelSpec, ModelMetadata] = field(default_factory=dict)

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s, self.clock)

    # -- Predict -------------------------------------------------------------------------------------------------

    def predict(
        self,
        spec: ModelSpec,
        inputs: Any,
        signature: str | None,
        outputs: Iterable[str] | None,
        timeout_s: float | None,
    ) -> Steps[Prediction]:
        deadline = self._deadline(timeout_s)
        wanted = list(outputs or ())
        known, remembered = None, False
        if tensor_inputs.needs_signature(inputs):
            remembered = spec in self._known
            known = yield from self._signatures(spec, deadline, isinstance(inputs, Mapping))
        declared = _signature_of(known, signature)
        try:
            request = _predict_request(spec, inputs, signature, declared, wanted)
            reply = yield from send(_PREDICT, request, deadline, self.policy)
        except (InputError, InvalidArgument):
            # What was remembered may be of an older version, whose inputs had other dtypes.
            if not remembered:
                raise
            self._known.pop(spec, None)
            known = yield from self._signatures(spec, deadline, isinstance(inputs, Mapping))
            if _signature_of(known, signature) == declared:
                raise
            request = _predict_request(spec, inputs, signature, _signature_of(known, signature), wanted)
            reply = yield from send(_PREDICT, request, deadline, self.policy)
        version = reply.model_spec.version.value
        if known is not None and known.version != version:
            self._known.pop(spec, None)
        return Prediction({alias: _decoded(alias, reply.outputs[alias]) for alias in sorted(reply.outputs)}, version)

    def _signatures(self, spec: ModelSpec, deadline: Deadline, named: bool) -> Steps[ModelMetadata | None]:
        """What is known of the model; None where the server cannot say, and the inputs have names at least."""
        known = self._known.get(spec)
        if known is None:
            try:
                known = yield from self._ask_metadata(spec, deadline)
            except CallError as error:
                if error.code not in _NO_METADATA or (not named and error.code is not Code.UNIMPLEMENTED):
                    raise
                return None
            self._known[spec] = known
        return known

    # -- examples ------------------------------------------------------------------------------------------------

    def classify(
        self, spec: ModelSpec, examples: Iterable[Any], signature: str | None, context: Any, timeout_s: float | None
    ) -> Steps[list[list[Class]]]:
        request = _example_request(protos.ClassificationRequest(), spec, examples, signature, context)
        reply = yield from send(_CLASSIFY, request, self._deadline(timeout_s), self.policy)
        return _classes(reply.result)

    def regress(
        self, spec: ModelSpec, examples: Iterable[Any], signature: str | None, context: Any, timeout_s: float | None
    ) -> Steps[Array]:
        request = _example_request(protos.RegressionRequest(), spec, examples, signature, context)
        reply = yield from send(_REGRESS, request, self._deadline(timeout_s), self.policy)
        return _values(reply.result)

    def multi_inference(
        self,
        spec: ModelSpec,
        examples: Iterable[Any],
        tasks: Mapping[str, Literal["classify", "regress"]],
        context: Any,
        timeout_s: float | None,
    ) -> Steps[dict[str, list[list[Class]] | Array]]:
        request = protos.MultiInferenceRequest()
        for signature, method in tasks.items():
            if method not in ("classify", "regress"):
                raise InputError(f"tasks[{signature!r}]: expected 'classify' or 'regress', got {method!r}")
            task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
            spec.fill(task.model_spec, signature)
        tf_examples.fill(request.input, examples, context)
        reply = yield from send(_MULTI_INFERENCE, request, self._deadline(timeout_s), self.policy)
        if len(reply.results) != len(tasks):
            raise Internal(f"{len(tasks)} tasks were asked for, the reply has {len(reply.results)} results")
        return {
            signature: _classes(each.classification_result)
            if each.HasField("classification_result")
            else _values(each.regression_result)
            for signature, each in zip(tasks, reply.results, strict=True)
        }

    # -- the model itself ----------------------------------------------------------------------------------------

    def metadata(self, spec: ModelSpec, timeout_s: float | None) -> Steps[ModelMetadata]:
        found = yield from self._ask_metadata(spec, self._deadline(timeout_s))
        self._known[spec] = found
        return found

    def _ask_metadata(self, spec: ModelSpec, deadline: Deadline) -> Steps[ModelMetadata]:
        request = protos.GetModelMetadataRequest(metadata_field=["signature_def"])
        spec.fill(request.model_spec)
        reply = yield from send(_METADATA, request, deadline, self.policy)
        return model_metadata(reply)

    def status(self, spec: ModelSpec, timeout_s: float | None) -> Steps[list[VersionStatus]]:
        request = protos.GetModelStatusRequest()
        spec.fill(request.model_spec)
        reply = yield from send(_STATUS, request, self._deadline(timeout_s), self.policy)
        return version_statuses(reply)

    def reload(self, config: Any, timeout_s: float | None) -> Steps[None]:
        request = protos.ReloadConfigRequest()
        if isinstance(config, str):
            from google.protobuf import text_format  # noqa: PLC0415 - slow to import, and only this needs it

            try:
                text_format.Parse(config, request.config)
            except text_format.ParseError as error:
                raise InputError(f"config: not a ModelServerConfig in text format: {error}") from error
        else:
            request.config.ParseFromString(config.SerializeToString())
        reply = yield from send(_RELOAD, request, self._deadline(timeout_s), self.policy)
        if reply.status.error_code != Code.OK:
            raise call_error(reply.status.error_code, reply.status.error_message)


def operations(timeout_s: float, retries: int) -> Operations:
    """Raises InputError."""
    if not timeout_s > 0:
        raise InputError(f"timeout_s: expected a positive number of seconds, got {timeout_s!r}")
    if retries < 0:
        raise InputError(f"retries: expected a whole number of at least 0, got {retries!r}")
    return Operations(timeout_s, RetryPolicy(retries, random.random), time.monotonic)


def _signature_of(known: ModelMetadata | None, key: str | None) -> Signature | None:
    return None if known is None else known.signatures.get(key or DEFAULT_SIGNATURE)


def _predict_request(
    spec: ModelSpec, inputs: Any, signature: str | None, declared: Signature | None, outputs: list[str]
) -> Any:
    request = protos.PredictRequest(output_filter=outputs)
    spec.fill(request.model_spec, signature)
    for name, value in tensor_inputs.named(inputs, declared).items():
        request.inputs[name].CopyFrom(tensor_inputs.encode(name, value, declared))
    return request


def _example_request(
    request: Any, spec: ModelSpec, examples: Iterable[Any], signature: str | None, context: Any
) -> Any:
    spec.fill(request.model_spec, signature)
    tf_examples.fill(request.input, examples, context)
    return request


def _decoded(alias: str, proto: Any) -> Array:
    try:
        return tensors.decode(alias, proto)
    except PoolError as error:
        raise Internal(f"output {alias!r} cannot be read: {error.message}") from error


def _classes(result: Any) -> list[list[Class]]:
    return [[Class(each.label, each.score) for each in entry.classes] for entry in result.classifications]


def _values(result: Any) -> Array:
    return np.array([each.value for each in result.regressions], np.float32)
