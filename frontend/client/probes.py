"""Small calls of models in closed loops, made from their signatures: what clients see while a pool is hurt.

For `modelpool chaos`. All loops run in one event loop in a thread of its own; requests are made once and sent as bytes,
so that the prober takes little of the machine that it measures.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np

from . import inputs, protos
from .blocking import Client
from .channel import credentials
from .errors import ClientError, InputError
from .model_spec import ModelSpec
from .results import Signature, TensorSpec
from .tls import Tls

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_PREDICT_METHOD = "tensorflow/serving/predict"
_CALL_TIMEOUT_S = 30.0
_FIRST_CALL_TIMEOUT_S = 10.0
# A field that PredictRequest does not have; its content only gives a request its size.
_PADDING_TAG = b"\x82\x7d"  # field 2000, length-delimited


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it began (CLOCK_MONOTONIC), how long it took, and the code and text it was refused with."""

    began_s: float
    took_s: float
    code: str = "OK"
    text: str = ""

    @property
    def ended_s(self) -> float:
        return self.began_s + self.took_s


@dataclass(frozen=True, slots=True)
class Window:
    """What a model's clients saw in a stretch of time. `errors`: how often which code; times are of answered calls."""

    calls: int
    errors: Mapping[str, int]
    p50_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, calls: list[Call]) -> "Window":
        errors = Counter(call.code for call in calls if call.code != "OK")
        took_s = np.array([call.took_s for call in calls if call.code == "OK"] or [0.0])
        p50_s, p99_s, max_s = (float(each) for each in np.percentile(took_s, (50, 99, 100)))
        return cls(len(calls), errors, p50_s, p99_s, max_s)


@dataclass(slots=True)
class _Model:
    request: bytes
    calls: list[Call] = field(default_factory=list)


class Probes:
    """`clients` loops per model. Add the models, then `start`; the calls of all time are kept until `stop`."""

    def __init__(self, target: str, clients: int, root_certificates: str | None = None) -> None:
        self._target = target
        self._clients = clients
        self._tls = None if root_certificates is None else Tls(root_certificates=root_certificates)
        self._models: dict[str, _Model] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="probes", daemon=True)

    def add(self, model: str) -> str:
        """Probe this model. Returns why it cannot be, "" if it can: none of its signatures takes made-up inputs."""
        with Client(self._target, timeout_s=_FIRST_CALL_TIMEOUT_S, tls=self._tls) as client:
            try:
                metadata = client.metadata(model)
            except ClientError as error:
                return f"{error.code.name}: {error.message}"
        reason = "it has no signature for Predict"
        for name, signature in metadata.signatures.items():
            if signature.method_name != _PREDICT_METHOD or not signature.outputs:
                continue
            try:
                request = _request(model, name, signature)
                self.call(request)
            except (InputError, grpc.RpcError) as error:
                reason = f"signature {name}: {error.details() if isinstance(error, grpc.RpcError) else error}"
            else:
                self._models[model] = _Model(request)
                return ""
        return reason

    def call(self, request: bytes, timeout_s: float = _FIRST_CALL_TIMEOUT_S) -> bytes:
        """One call by itself. Raises grpc.RpcError."""
        with self._blocking_channel() as channel:
            answer: bytes = channel.unary_unary(_PREDICT)(request, timeout=timeout_s)
            return answer

    def refusal(self, request: bytes, timeout_s: float) -> tuple[str, str]:
        """Code and text with which one call by itself is refused; OK and "" when it is not."""
        try:
            self.call(request, timeout_s)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def padded(self, model: str, size_bytes: int) -> bytes:
        """The request of a probed model, made bigger to this size by a field that no server reads."""
        request = self._models[model].request
        for width in range(1, 6):
            length = size_bytes - len(request) - len(_PADDING_TAG) - width
            if 0 <= length < 1 << 7 * width:
                return request + _PADDING_TAG + _varint(length, width) + bytes(length)
        raise InputError(f"size_bytes: expected at least {len(request) + 4}, got {size_bytes}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the loops, each after the call that it is at."""
        self._stopping.set()
        self._thread.join()

    def window(self, model: str, from_s: float, to_s: float) -> Window:
        """The calls that ended between the two times."""
        return Window.of([call for call in self._models[model].calls if from_s <= call.ended_s < to_s])

    def texts(self, model: str, from_s: float) -> list[str]:
        """The different refusals since then, each once."""
        calls = self._models[model].calls
        return sorted({f"{c.code}: {c.text}" for c in calls if c.ended_s >= from_s and c.code != "OK"})

    async def _run(self) -> None:
        """Each client has a connection of its own, as clients have."""
        loops = [self._loop(model) for model in self._models.values() for _ in range(self._clients)]
        await asyncio.gather(*loops)

    async def _loop(self, model: _Model) -> None:
        async with self._channel() as channel:
            predict = channel.unary_unary(_PREDICT)
            while not self._stopping.is_set():
                began_s = time.monotonic()
                try:
                    await predict(model.request, timeout=_CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    took_s = time.monotonic() - began_s
                    model.calls.append(Call(began_s, took_s, error.code().name, error.details() or ""))
                else:
                    model.calls.append(Call(began_s, time.monotonic() - began_s))

    def _blocking_channel(self) -> Any:
        if self._tls is None:
            return grpc.insecure_channel(self._target, _OWN_CONNECTION)
        return grpc.secure_channel(self._target, credentials(self._tls), _OWN_CONNECTION)

    def _channel(self) -> Any:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, _OWN_CONNECTION)
        return grpc.aio.secure_channel(self._target, credentials(self._tls), _OWN_CONNECTION)


# Channels of one process to one target share a connection unless told otherwise. A server that restarts is tried
# again soon.
_OWN_CONNECTION = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def _request(model: str, name: str, signature: Signature) -> bytes:
    """A PredictRequest with the smallest inputs that the signature takes. Raises InputError."""
    request = protos.PredictRequest()
    ModelSpec(model, None, None).fill(request.model_spec, name)
    for alias, spec in signature.inputs.items():
        if alias not in signature.defaults:
            request.inputs[alias].CopyFrom(inputs.encode(alias, _value(spec), signature))
    raw: bytes = request.SerializeToString()
    return raw


def _value(spec: TensorSpec) -> Any:
    """Zeros or empty strings; free dimensions are 1, a free rank is 1, too."""
    shape = (1,) if spec.shape is None else tuple(1 if size is None else size for size in spec.shape)
    row = protos.tensors.DTYPES.get(spec.enum)
    if row is None:
        raise InputError(f"inputs of dtype {spec.dtype} cannot be made up")
    return np.full(shape, b"", object) if spec.dtype == "string" else np.zeros(shape, row.stored)


def _varint(value: int, width: int) -> bytes:
    """In so many bytes, which may be more than it needs: lengths that take a byte more would leave out a size."""
    groups = [value >> 7 * place & 0x7F for place in range(width)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])
