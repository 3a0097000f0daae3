"""The blocking client. Any number of threads may share one."""

import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from .errors import CallError, Cancelled
from .model_spec import ModelSpec
from .results import Class, ModelMetadata, Prediction, VersionStatus
from .retry import Steps, Wait
from .settings import DEFAULT_TIMEOUT_S, MetadataArgument, metadata_pairs
from .tls import Tls

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

T = TypeVar("T")


class Client:
    """A client of one server that speaks TensorFlow Serving's gRPC API: numpy in, numpy out, no TensorFlow.

    `target` is gRPC's, as in "localhost:8500" or "unix:/run/server.sock"; without `tls` the connection is plain.
    `timeout_s` limits each operation with all its calls and waits, unless the operation is given its own; `math.inf`
    means no limit. `metadata` goes with every call. `options` are further gRPC channel arguments.

    A call answered UNAVAILABLE or RESOURCE_EXHAUSTED with a `retry-after` (seconds) or `grpc-retry-pushback-ms` in the
    trailing metadata is made again after that time, if the limit leaves it. Without such a hint a call is made again
    only after UNAVAILABLE and up to `retries` times; `reload` never is.

    Every operation raises InputError when its arguments make no request, else CallError with the server's code.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 0,
        tls: Tls | None = None,
        metadata: MetadataArgument = (),
        options: Mapping[str, int | str] | None = None,
    ) -> None:
        from .channel import BlockingChannel  # noqa: PLC0415 - grpc, numpy and the protos: with the first client
        from .operations import operations  # noqa: PLC0415

        self._operations = operations(timeout_s, retries)
        self._closed = threading.Event()
        self._channel = BlockingChannel.open(target, tls, metadata_pairs(metadata), options or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls that other threads have in flight or wait to repeat fail with Cancelled."""
        self._closed.set()
        self._channel.close()

    def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    if self._closed.wait(step.seconds):
                        raise Cancelled("the client is closed")
                    step = next(steps)
                    continue
                try:
                    reply = self._channel.send(step)
                except CallError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: Iterable[str] | None = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """The outputs by name, or those named by `outputs`; strings as object arrays of bytes. They may be read-only.

        `inputs` maps names to values; a value that is no mapping is the model's one input. Arrays are sent in their
        dtype, Python literals in the dtype that the signature declares, for which the model's metadata is asked for
        once. The version is given by number, by label, or is the newest; the signature is `serving_default` by default.
        """
        spec = ModelSpec(model, version, label)
        return self._drive(self._operations.predict(spec, inputs, signature, outputs, timeout_s))

    def classify(
        self,
        model: str,
        examples: Iterable[Any],
        *,
        context: Any = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout_s: float | None = None,
    ) -> list[list[Class]]:
        """For each example its classes.

        An example maps features to a value or values: text to a bytes_list, whole numbers to an int64_list, floats to
        a float_list; it may also be a tf.train.Example or the bytes of one. `context` is an example too: the features
        that all have in common.
        """
        spec = ModelSpec(model, version, label)
        return self._drive(self._operations.classify(spec, examples, signature, context, timeout_s))

    def regress(
        self,
        model: str,
        examples: Iterable[Any],
        *,
        context: Any = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout_s: float | None = None,
    ) -> "Array":
        """For each example its value: float32, [number of examples]. Examples are as for `classify`."""
        spec = ModelSpec(model, version, label)
        return self._drive(self._operations.regress(spec, examples, signature, context, timeout_s))

    def multi_inference(
        self,
        model: str,
        examples: Iterable[Any],
        tasks: Mapping[str, Literal["classify", "regress"]],
        *,
        context: Any = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> "dict[str, list[list[Class]] | Array]":
        """Several signatures on the same examples in one run; by signature what `classify` or `regress` would give."""
        spec = ModelSpec(model, version, label)
        return self._drive(self._operations.multi_inference(spec, examples, tasks, context, timeout_s))

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout_s: float | None = None
    ) -> ModelMetadata:
        """The version that answers, and its signatures with their dtypes and shapes."""
        return self._drive(self._operations.metadata(ModelSpec(model, version, label), timeout_s))

    def status(self, model: str, *, version: int | None = None, timeout_s: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions, or of one, the newest first."""
        return self._drive(self._operations.status(ModelSpec(model, version), timeout_s))

    def reload(self, config: Any, *, timeout_s: float | None = None) -> None:
        """Replace the server's model config by a ModelServerConfig: in text format, or as a message.

        Returns when the models that it names anew answer. Raises CallError with what the server says of the others.
        """
        return self._drive(self._operations.reload(config, timeout_s))
