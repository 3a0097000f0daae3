"""The index file of a checkpoint: where each tensor lies in the data files. Pure but for reading that one file.

The file is a table of LevelDB's format (TF core's lib/io/format.cc and table_format.txt), which BundleWriter writes
without compression: the key "" leads to a BundleHeaderProto, each other key to a BundleEntryProto
(util/tensor_bundle/tensor_bundle.cc). What is in any way else than that is left to TensorFlow.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2

from modelpool.supervisor.wire.varint import read_varint

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
# After each block: how it is compressed, and the masked checksum of both.
_TRAILER = struct.Struct("<BI")
_UNCOMPRESSED = 0
_MASK_DELTA = 0xA282EAD8
_MASK_ROTATION = 15
_WORD = 0xFFFFFFFF


class UnreadableError(ValueError):
    """It is no such file, a damaged one, or one of a kind that is not read here."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole tensor: `dtype` is a DataType, and its bytes are those of the shard from `offset` on."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class Index:
    """Of all tensors that are stored in one piece, by their keys."""

    prefix: str
    shards: int
    entries: Mapping[str, Entry]

    def data_file(self, shard: int) -> str:
        return f"{self.prefix}.data-{shard:05d}-of-{self.shards:05d}"


def read(prefix: str) -> Index:
    """The index of the checkpoint. Raises UnreadableError and OSError."""
    return parse(prefix, Path(f"{prefix}.index").read_bytes())


def parse(prefix: str, table: bytes) -> Index:
    """The index in the bytes of its file. Raises UnreadableError."""
    try:
        items = _items(table)
        key, value = next(items, (None, b""))
        if key != b"":
            raise UnreadableError("no header")
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(value)
        if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
            raise UnreadableError("not little endian")
        entries = {}
        for key, value in items:
            proto = tensor_bundle_pb2.BundleEntryProto.FromString(value)
            # A tensor in slices has more entries, whose keys are no text.
            if not proto.slices and not key.startswith(b"\0"):
                entries[key.decode()] = _entry(proto)
    except UnreadableError:
        raise
    except (IndexError, ValueError, struct.error, DecodeError) as error:
        raise UnreadableError(str(error)) from error
    return Index(prefix, header.num_shards, entries)


def unmasked(stored: int) -> int:
    """The checksum that was stored masked, as of data that holds checksums itself (tsl/lib/hash/crc32c.h)."""
    rotated = (stored - _MASK_DELTA) & _WORD
    return (rotated >> (32 - _MASK_ROTATION) | rotated << _MASK_ROTATION) & _WORD


def _entry(proto: tensor_bundle_pb2.BundleEntryProto) -> Entry:
    shape = tuple(dim.size for dim in proto.shape.dim)
    return Entry(proto.dtype, shape, proto.shard_id, proto.offset, proto.size, unmasked(proto.crc32c))


def _items(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a table in their order, by the index block that the footer leads to."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) != _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise UnreadableError("not a table")
    _, _, at = _handle(footer, 0)  # of the metaindex block, which holds nothing
    offset, size, _ = _handle(footer, at)
    for _, handle in _block_items(_block(table, offset, size)):
        offset, size, _ = _handle(handle, 0)
        yield from _block_items(_block(table, offset, size))


def _block(table: bytes, offset: int, size: int) -> bytes:
    kind, stored = _TRAILER.unpack_from(table, offset + size)
    if kind != _UNCOMPRESSED:
        raise UnreadableError(f"a block is compressed: {kind}")
    if google_crc32c.value(table[offset : offset + size + 1]) != unmasked(stored):
        raise UnreadableError("a block's checksum is wrong")
    return table[offset : offset + size]


def _block_items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key without what it shares with the one before it; the restart points at the end are not needed here."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise UnreadableError("a block is cut short")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        value_size, at = read_varint(block, at)
        if shared > len(key) or at + own + value_size > end:
            raise UnreadableError("a block's entry goes beyond it")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + value_size]
        at += value_size


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where the handle ends."""
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at
