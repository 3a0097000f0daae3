"""gRPC server reflection by grpcio-reflection. In the event loop.

The library and the services' descriptors are loaded with the first call, so that whoever does not ask does not pay.
The library has v1alpha only; v1 has the same messages under another package name, so both are answered alike.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from modelpool.supervisor.wire import protos
from modelpool.supervisor.wire.parsing import parse

from .grpc_calls import Call, Methods

SERVICE = "grpc.reflection.v1alpha.ServerReflection"
_METHODS = (f"/{SERVICE}/ServerReflectionInfo", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")

T = TypeVar("T")


class Reflection:
    """Lists `services` (full names) and itself, and gives their descriptors and all these depend on."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = (*services, SERVICE)
        self._servicer: Any = None
        self._drained = asyncio.Event()
        self.methods = Methods(streams=dict.fromkeys(_METHODS, self._info))

    def drain(self) -> None:
        """End the streams: clients keep them open for as long as they live."""
        self._drained.set()

    async def _info(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415 - see the module's docstring

        if self._servicer is None:
            protos.load_service_descriptors()
            self._servicer = reflection.aio.ReflectionServicer(self._services)

        async def parsed() -> AsyncIterator[Any]:
            async for request in _until(requests, self._drained):
                yield parse(reflection_pb2.ServerReflectionRequest, request)

        async for reply in self._servicer.ServerReflectionInfo(parsed(), None):
            yield reply.SerializeToString()


async def _until(items: AsyncIterator[T], end: asyncio.Event) -> AsyncIterator[T]:
    """The items that come before `end` is set."""
    ended = asyncio.ensure_future(end.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait((following, ended), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                yield following.result()
            except StopAsyncIteration:
                return
            finally:
                following.cancel()
    finally:
        ended.cancel()
