"""A sampled request and its answer as a PredictionLog. Knows neither files nor when to sample.

The answer of a gRPC call is the response's bytes. That of a REST call is JSON: there the outputs of the model's run
are kept, and the response is what the very same call makes of them, without another run.
TF Serving: core/request_logger.cc; LogMetadata of apis/logging.proto.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Internal

from .calls import Calls
from .model_spec import Identity

Outputs = Mapping[str, np.ndarray]

REST_METHODS = frozenset({Method.REST_PREDICT, Method.REST_CLASSIFY, Method.REST_REGRESS})


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered OK. `outputs`: of the model's run, by tensor name; empty for a gRPC call."""

    method: Method
    payload: bytes
    reply: bytes
    outputs: Outputs

    @property
    def size_bytes(self) -> int:
        """What it holds of memory, about."""
        return len(self.payload) + len(self.reply) + sum(array.nbytes for array in self.outputs.values())


class _Replay:
    """A model that has run already: its outputs are those that were kept."""

    def __init__(self, signatures: Mapping[str, Any]) -> None:
        self.signatures = signatures
        self.outputs: Outputs = {}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        missing = [name for name in fetches if name not in self.outputs]
        if missing:
            raise Internal(f"The run of a logged request had no outputs {', '.join(missing)}")
        return [self.outputs[name] for name in fetches]


class LogMaker:
    """Makes the PredictionLogs of one model. One thread; any, but always the same."""

    def __init__(
        self,
        readers: Mapping[Method, Callable[[bytes], Any]],
        signatures: Mapping[str, Any],
        identity: Identity,
        tags: Sequence[str],
    ) -> None:
        """`readers`: see `Calls.readers`. `tags` are those the model was loaded with."""
        self._readers = readers
        self._replay = _Replay(signatures)
        self._calls = Calls.of(self._replay, identity)
        self._identity = identity
        self._tags = tuple(tags)

    def make(self, answered: Answered, sampling_rate: float) -> bytes:
        """A serialized PredictionLog with request, response and metadata. Raises PoolError."""
        record = self._readers[answered.method](answered.payload)
        kind = record.WhichOneof("log_type")
        part = getattr(record, kind)
        if answered.method in REST_METHODS:
            self._replay.outputs = answered.outputs
            part.response.CopyFrom(self._calls.answer(record, "request logs"))
            self._replay.outputs = {}
        else:
            part.response.ParseFromString(answered.reply)
        metadata = record.log_metadata
        if kind == "multi_inference_log":
            # One request of several signatures.
            self._identity.fill(metadata.model_spec, "")
        else:
            metadata.model_spec.CopyFrom(part.response.model_spec)
        metadata.sampling_config.sampling_rate = sampling_rate
        metadata.saved_model_tags.extend(self._tags)
        raw: bytes = record.SerializeToString()
        return raw
