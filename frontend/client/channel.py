"""gRPC channels of the clients, and the answers of gRPC as errors. Only this module and `probes` import grpc.

Imported when the first client is made, since grpc takes as long to import as all the rest.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from .errors import CallError, Cancelled, InputError, call_error
from .retry import Send
from .tls import Tls

MAX_MESSAGE_BYTES = 2**31 - 1

MetadataPairs = tuple[tuple[str, str | bytes], ...]


def _options(tls: Tls | None, given: Mapping[str, int | str]) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    }
    if tls is not None and tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
    return [*{**options, **given}.items()]


def credentials(tls: Tls) -> Any:
    if (tls.private_key is None) != (tls.certificate is None):
        raise InputError("tls: expected a private key and its certificate together")
    pems = (_pem(each) for each in (tls.root_certificates, tls.private_key, tls.certificate))
    return grpc.ssl_channel_credentials(*pems)


def _pem(source: bytes | Path | str | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"tls: {error}") from error


@dataclass(slots=True)
class BlockingChannel:
    """Calls of one target, for any thread."""

    _channel: Any
    _metadata: MetadataPairs

    @classmethod
    def open(
        cls, target: str, tls: Tls | None, metadata: MetadataPairs, options: Mapping[str, int | str]
    ) -> "BlockingChannel":
        settings = _options(tls, options)
        if tls is None:
            return cls(grpc.insecure_channel(target, settings), metadata)
        return cls(grpc.secure_channel(target, credentials(tls), settings), metadata)

    def send(self, step: Send) -> Any:
        """The reply. Raises CallError."""
        try:
            call = self._channel.unary_unary(
                step.method.path, type(step.request).SerializeToString, step.method.reply.FromString
            )
            return call(step.request, timeout=step.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _call_error(error.code(), error.details(), error.trailing_metadata()) from error
        except ValueError as error:
            # How grpc refuses a call on a channel that was closed, and a request that is too big to serialize.
            raise Cancelled(str(error)) from error

    def close(self) -> None:
        self._channel.close()


@dataclass(slots=True)
class AsyncChannel:
    """Calls of one target, for one event loop."""

    _channel: Any
    _metadata: MetadataPairs

    @classmethod
    def open(
        cls, target: str, tls: Tls | None, metadata: MetadataPairs, options: Mapping[str, int | str]
    ) -> "AsyncChannel":
        settings = _options(tls, options)
        if tls is None:
            return cls(grpc.aio.insecure_channel(target, settings), metadata)
        return cls(grpc.aio.secure_channel(target, credentials(tls), settings), metadata)

    async def send(self, step: Send) -> Any:
        """The reply. Raises CallError."""
        try:
            call = self._channel.unary_unary(
                step.method.path, type(step.request).SerializeToString, step.method.reply.FromString
            )
            return await call(step.request, timeout=step.timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _call_error(error.code(), error.details(), error.trailing_metadata()) from error
        except grpc.aio.UsageError as error:
            raise Cancelled(str(error)) from error

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._channel.close()


def _call_error(code: Any, details: str | None, trailing: Iterable[Any] | None) -> CallError:
    texts = {key.lower(): value for key, value in trailing or () if isinstance(value, str)}
    return call_error(code.value[0], details or "", texts)
