"""The body of an HTTP request: collected from the ASGI server within a limit, gunzipped on the way. Event loop.

It never holds more than the limit, however large the body or however much a gzip stream would unfold to.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from modelpool.supervisor.wire.status import InvalidArgument

Receive = Callable[[], Awaitable[Any]]

_GZIP_WBITS = 31
# Unpacking this much takes about a millisecond; then others get their turn.
_STEP_BYTES = 256 * 1024


class BodyTooLarge(InvalidArgument):
    """HTTP 413."""


class ClientGone(Exception):
    """The client closed the connection before the answer."""


async def read(headers: Iterable[tuple[bytes, bytes]], receive: Receive, limit_bytes: int) -> bytes:
    """The whole body, unpacked. Raises BodyTooLarge, ClientGone, or InvalidArgument for broken gzip."""
    length, gzipped = 0, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-encoding":
            gzipped = value.strip().lower() in (b"gzip", b"x-gzip")
    if length > limit_bytes:
        raise BodyTooLarge(f"Request body is too large: {length} bytes, the limit max_request_bytes is {limit_bytes}")
    body = _GzipBody(limit_bytes) if gzipped else _PlainBody(limit_bytes)
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        await body.add(event.get("body", b""))
        more = event.get("more_body", False)
    return body.whole()


class _PlainBody:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._parts: list[bytes] = []

    async def add(self, part: bytes) -> None:
        self.keep(part)

    def keep(self, part: bytes) -> None:
        self._size_bytes += len(part)
        if self._size_bytes > self._limit_bytes:
            raise BodyTooLarge(
                f"Request body is too large: more than {self._limit_bytes} bytes, the limit max_request_bytes"
            )
        self._parts.append(part)

    def whole(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _GzipBody(_PlainBody):
    """A gzip stream of one or more members."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._inflater = zlib.decompressobj(_GZIP_WBITS)

    async def add(self, part: bytes) -> None:
        try:
            for unpacked in self._unpacked(part):
                self.keep(unpacked)
                if len(unpacked) == _STEP_BYTES:
                    await asyncio.sleep(0)
        except zlib.error as error:
            raise InvalidArgument(f"Request body is not valid gzip: {error}") from error

    def _unpacked(self, part: bytes) -> Iterator[bytes]:
        while part or self._inflater.unconsumed_tail:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_GZIP_WBITS)
            yield self._inflater.decompress(part, _STEP_BYTES)
            part = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail

    def whole(self) -> bytes:
        if not self._inflater.eof:
            raise InvalidArgument("Request body is not valid gzip: the stream is cut short")
        return super().whole()
