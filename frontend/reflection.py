"""gRPC server reflection by grpcio-reflection. In the event loop.

The library and the services' descriptors are loaded with the first call, so that whoever does not ask does not pay.
The library has v1alpha only; v1 has the same messages under another package name, so both are answered alike.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc

from modelpool.supervisor.wire import protos

SERVICE = "grpc.reflection.v1alpha.ServerReflection"
_METHODS = frozenset({f"/{SERVICE}/ServerReflectionInfo", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"})

T = TypeVar("T")


class Reflection(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Lists `services` (full names) and itself, and gives their descriptors and all these depend on."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = (*services, SERVICE)
        self._handler: grpc.RpcMethodHandler | None = None
        self._drained = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method not in _METHODS:
            return None
        if self._handler is None:
            self._handler = self._load()
        return self._handler

    def drain(self) -> None:
        """End the streams: clients keep them open for as long as they live."""
        self._drained.set()

    def _load(self) -> grpc.RpcMethodHandler:
        from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415 - see the module's docstring

        protos.load_service_descriptors()
        servicer = reflection.aio.ReflectionServicer(self._services)

        async def info(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async for reply in servicer.ServerReflectionInfo(_until(requests, self._drained), context):
                yield reply

        return grpc.stream_stream_rpc_method_handler(
            info,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )


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
