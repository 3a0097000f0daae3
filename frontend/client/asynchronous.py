"""The asyncio client. One belongs to the event loop in which it was made."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from .errors import CallError
from .model_spec import ModelSpec
from .results import Class, ModelMetadata, Prediction, VersionStatus
from .retry import Steps, Wait
from .settings import DEFAULT_TIMEOUT_S, MetadataArgument, metadata_pairs
from .tls import Tls

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

T = TypeVar("T")


class AsyncClient:
    """As `Client`, for asyncio: the same arguments, operations and errors. To be made inside the event loop.

    A task that is cancelled cancels its call.
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
        from .channel import AsyncChannel  # noqa: PLC0415 - grpc, numpy and the protos: with the first client
        from .operations import operations  # noqa: PLC0415

        self._operations = operations(timeout_s, retries)
        self._channel = AsyncChannel.open(target, tls, metadata_pairs(metadata), options or {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls in flight fail with Cancelled."""
        await self._channel.close()

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    await self._channel.wait(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = await self._channel.send(step)
                except CallError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    async def predict(
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
        """As `Client.predict`."""
        spec = ModelSpec(model, version, label)
        return await self._drive(self._operations.predict(spec, inputs, signature, outputs, timeout_s))

    async def classify(
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
        """As `Client.classify`."""
        spec = ModelSpec(model, version, label)
        return await self._drive(self._operations.classify(spec, examples, signature, context, timeout_s))

    async def regress(
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
        """As `Client.regress`."""
        spec = ModelSpec(model, version, label)
        return await self._drive(self._operations.regress(spec, examples, signature, context, timeout_s))

    async def multi_inference(
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
        """As `Client.multi_inference`."""
        spec = ModelSpec(model, version, label)
        return await self._drive(self._operations.multi_inference(spec, examples, tasks, context, timeout_s))

    async def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout_s: float | None = None
    ) -> ModelMetadata:
        """As `Client.metadata`."""
        return await self._drive(self._operations.metadata(ModelSpec(model, version, label), timeout_s))

    async def status(
        self, model: str, *, version: int | None = None, timeout_s: float | None = None
    ) -> list[VersionStatus]:
        """As `Client.status`."""
        return await self._drive(self._operations.status(ModelSpec(model, version), timeout_s))

    async def reload(self, config: Any, *, timeout_s: float | None = None) -> None:
        """As `Client.reload`."""
        return await self._drive(self._operations.reload(config, timeout_s))
