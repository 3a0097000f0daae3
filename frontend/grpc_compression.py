"""gRPC's compression: messages in are unpacked within the limit, replies packed where the operator says so. Event loop.

A server packs nothing by itself: it does with the channel argument `grpc.default_compression_algorithm`, for clients
that take it (gRPC core: the numbers are grpc_compression_algorithm).
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from modelpool.supervisor.wire.status import Internal, ResourceExhausted, Unimplemented

from . import grpc_frames

ACCEPTED = b"identity, deflate, gzip"
ALGORITHM = "grpc.default_compression_algorithm"
_WBITS = {b"gzip": 31, b"deflate": 15}
_ALGORITHMS = {"1": b"deflate", "2": b"gzip"}
# Unpacking this much takes about a millisecond; then others get their turn.
_STEP_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Packing:
    """How replies are packed; `encoding` None: not."""

    encoding: bytes | None

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> "Packing":
        return cls(_ALGORITHMS.get(arguments.get(ALGORITHM, "").strip()))

    def pack(self, reply: bytes, accepted: bytes) -> tuple[bytes | None, bytes]:
        """The encoding and the frame of a reply, for a client whose `grpc-accept-encoding` is `accepted`."""
        if self.encoding is None or self.encoding not in [name.strip() for name in accepted.split(b",")]:
            return None, grpc_frames.plain(reply)
        packer = zlib.compressobj(wbits=_WBITS[self.encoding])
        packed = packer.compress(reply) + packer.flush()
        # Like gRPC: the reply says how it may be packed, and this message is not where that gains nothing.
        return self.encoding, grpc_frames.packed(packed) if len(packed) < len(reply) else grpc_frames.plain(reply)


async def unpack(encoding: bytes, message: bytes, limit: int) -> bytes:
    """The message. Raises Unimplemented, Internal for what is no such stream, ResourceExhausted over the limit."""
    wbits = _WBITS.get(encoding)
    if wbits is None:
        name = encoding.decode("utf-8", "replace")
        if name == "identity":
            raise Internal("Compressed flag set with identity or empty encoding")
        raise Unimplemented(f"Compression algorithm '{name}' is not supported: expected one of {ACCEPTED.decode()}")
    inflater = zlib.decompressobj(wbits)
    parts: list[bytes] = []
    size = 0
    try:
        while message:
            parts.append(inflater.decompress(message, _STEP_BYTES))
            message = inflater.unconsumed_tail
            size += len(parts[-1])
            if size > limit:
                raise ResourceExhausted(f"SERVER: Received message larger than max ({size} vs. {limit})")
            if message:
                await asyncio.sleep(0)
        parts.append(inflater.flush())
    except zlib.error as error:
        raise Internal(f"Message is not valid {encoding.decode()}: {error}") from error
    if not inflater.eof:
        raise Internal(f"Message is not valid {encoding.decode()}: the stream is cut short")
    return b"".join(parts)
