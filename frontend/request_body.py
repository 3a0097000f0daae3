"""The body of an HTTP request: collected from the ASGI server within a limit, gunzipped on the way. Event loop.

It never holds more than the limit. A gzip stream may not unfold to many times its size either: an honest body of some
size packs a few to a few dozen times, and a stream that packs a thousand times costs its sender next to nothing.
"""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.parts import Payload, gathered
from modelpool.supervisor.wire.status import DeadlineExceeded, InvalidArgument

Receive = Callable[[], Awaitable[Any]]
Headers = Sequence[tuple[bytes, bytes]]

# A gzip stream may unfold to so much whatever its size, and beyond that to so many times what has come of it.
FREE_BYTES = 32 << 20
MAX_RATIO = 100

_GZIP_WBITS = 31
# Unpacking this much takes about a millisecond; then others get their turn.
_STEP_BYTES = 256 * 1024


class BodyTooLarge(InvalidArgument):
    """HTTP 413."""


class ClientGone(Exception):
    """The client closed the connection before the answer."""


async def read(
    headers: Headers, receive: Receive, limit_bytes: int, deadline_ns: int, came: Callable[[int], None]
) -> Payload:
    """The whole body, unpacked. `deadline_ns` is on CLOCK_MONOTONIC, `data.NO_DEADLINE_NS` for none.

    `came` is told of each piece that is kept, by its size, and may raise.

    Raises BodyTooLarge, ClientGone, DeadlineExceeded, or InvalidArgument for broken gzip.
    """
    body = _body(headers, limit_bytes, came)
    timeout_s = None if deadline_ns == data.NO_DEADLINE_NS else (deadline_ns - time.monotonic_ns()) / 1e9
    try:
        async with asyncio.timeout(timeout_s):
            await _collect(body, receive)
    except TimeoutError as error:
        raise DeadlineExceeded("Deadline exceeded before the whole request body had come") from error
    return body.whole()


def _body(headers: Iterable[tuple[bytes, bytes]], limit_bytes: int, came: Callable[[int], None]) -> "_PlainBody":
    """An empty body of the kind that the headers announce. Raises BodyTooLarge."""
    length, gzipped = 0, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-encoding":
            gzipped = value.strip().lower() in (b"gzip", b"x-gzip")
    if length > limit_bytes:
        raise BodyTooLarge(f"Request body is too large: {length} bytes, the limit max_request_bytes is {limit_bytes}")
    return _GzipBody(limit_bytes, came) if gzipped else _PlainBody(limit_bytes, came)


async def _collect(body: "_PlainBody", receive: Receive) -> None:
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        await body.add(event.get("body", b""))
        more = event.get("more_body", False)


class _PlainBody:
    def __init__(self, limit_bytes: int, came: Callable[[int], None]) -> None:
        self._limit_bytes = limit_bytes
        self._came = came
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
        self._came(len(part))
        self._parts.append(part)

    def whole(self) -> Payload:
        return gathered(self._parts)


class _GzipBody(_PlainBody):
    """A gzip stream of one or more members."""

    def __init__(self, limit_bytes: int, came: Callable[[int], None]) -> None:
        super().__init__(limit_bytes, came)
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self._packed_bytes = 0

    async def add(self, part: bytes) -> None:
        self._packed_bytes += len(part)
        try:
            for unpacked in self._unpacked(part):
                self.keep(unpacked)
                if self._size_bytes > max(FREE_BYTES, MAX_RATIO * self._packed_bytes):
                    raise BodyTooLarge(
                        f"Request body is too large: {self._packed_bytes} bytes of gzip unpack to more than "
                        f"{self._size_bytes} bytes; expected at most {MAX_RATIO} times as much, or {FREE_BYTES} bytes"
                    )
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

    def whole(self) -> Payload:
        if not self._inflater.eof:
            raise InvalidArgument("Request body is not valid gzip: the stream is cut short")
        return super().whole()
