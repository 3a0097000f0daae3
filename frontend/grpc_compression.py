"""gRPC's compression: messages in are unpacked within the limit, replies packed where the operator says so. Event loop.

A server packs nothing by itself: it does with the channel argument `grpc.default_compression_algorithm`, for clients
that take it (gRPC core: the numbers are grpc_compression_algorithm).
"""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from modelpool.supervisor.wire.parts import Buffer, Payload, gathered, pieces_of
from modelpool.supervisor.wire.status import Internal, ResourceExhausted, Unimplemented

from . import grpc_frames
from .request_body import FREE_BYTES, MAX_RATIO

ACCEPTED = b"identity, deflate, gzip"
ALGORITHM = "grpc.default_compression_algorithm"
_WBITS = {b"gzip": 31, b"deflate": 15}
_ALGORITHMS = {"1": b"deflate", "2": b"gzip"}
# Unpacking this much takes about a millisecond; then others get their turn.
_STEP_BYTES = 256 * 1024
# Packing takes ten times as long.
_PACKED_AT_ONCE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Packing:
    """How replies are packed; `encoding` None: not."""

    encoding: bytes | None

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> "Packing":
        return cls(_ALGORITHMS.get(arguments.get(ALGORITHM, "").strip()))

    async def pack(self, reply: bytes, accepted: bytes) -> tuple[bytes | None, bytes]:
        """The encoding and the frame of a reply, for a client whose `grpc-accept-encoding` is `accepted`."""
        if self.encoding is None or self.encoding not in [name.strip() for name in accepted.split(b",")]:
            return None, grpc_frames.plain(reply)
        packer = zlib.compressobj(wbits=_WBITS[self.encoding])
        parts = []
        for number, piece in enumerate(_slices((reply,), _PACKED_AT_ONCE_BYTES)):
            if number:
                await asyncio.sleep(0)
            parts.append(packer.compress(piece))
        packed = b"".join((*parts, packer.flush()))
        # Like gRPC: the reply says how it may be packed, and this message is not where that gains nothing.
        return self.encoding, grpc_frames.packed(packed) if len(packed) < len(reply) else grpc_frames.plain(reply)


async def unpack(encoding: bytes, message: Payload, limit: int, came: Callable[[int], None]) -> Payload:
    """The message. `came` is told of each piece that is kept, by its size, and may raise.

    Raises Unimplemented, Internal for what is no such stream, ResourceExhausted over the limit, and for what unpacks to
    far more than its size, as the REST API does (`request_body`).
    """
    wbits = _WBITS.get(encoding)
    if wbits is None:
        name = encoding.decode("utf-8", "replace")
        if name == "identity":
            raise Internal("Compressed flag set with identity or empty encoding")
        raise Unimplemented(f"Compression algorithm '{name}' is not supported: expected one of {ACCEPTED.decode()}")
    unpacked = _Unpacked(encoding, limit, len(message), came)
    inflater = zlib.decompressobj(wbits)
    try:
        # What is left of a piece is copied for each step of what it unpacks to: so these are no larger than the steps.
        for number, packed in enumerate(_slices(pieces_of(message), _STEP_BYTES)):
            if number:
                await asyncio.sleep(0)
            unpacked.keep(inflater.decompress(packed, _STEP_BYTES))
            while inflater.unconsumed_tail:
                await asyncio.sleep(0)
                unpacked.keep(inflater.decompress(inflater.unconsumed_tail, _STEP_BYTES))
            if inflater.eof:
                break
        unpacked.keep(inflater.flush())
    except zlib.error as error:
        raise Internal(f"Message is not valid {encoding.decode()}: {error}") from error
    if not inflater.eof:
        raise Internal(f"Message is not valid {encoding.decode()}: the stream is cut short")
    return gathered(unpacked.parts)


class _Unpacked:
    """What a message of `packed_bytes` has been unpacked to so far."""

    def __init__(self, encoding: bytes, limit: int, packed_bytes: int, came: Callable[[int], None]) -> None:
        self.parts: list[bytes] = []
        self._encoding = encoding
        self._limit = limit
        self._packed_bytes = packed_bytes
        self._came = came
        self._size = 0

    def keep(self, part: bytes) -> None:
        """Raises ResourceExhausted, and what `came` raises."""
        if not part:
            return
        self._size += len(part)
        if self._size > self._limit:
            raise ResourceExhausted(f"SERVER: Received message larger than max ({self._size} vs. {self._limit})")
        if self._size > max(FREE_BYTES, MAX_RATIO * self._packed_bytes):
            raise ResourceExhausted(
                f"SERVER: Received message of {self._packed_bytes} bytes of {self._encoding.decode()} that unpack to "
                f"more than {self._size} bytes; expected at most {MAX_RATIO} times as much, or {FREE_BYTES} bytes"
            )
        self._came(len(part))
        self.parts.append(part)


def _slices(pieces: Iterable[Buffer], most_bytes: int) -> Iterator[memoryview]:
    """The same bytes in slices of `most_bytes` at most."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), most_bytes):
            yield view[start : start + most_bytes]
