"""Indices of checkpoints as BundleWriter lays them out; what is damaged or unusual is refused and never misread."""

import contextlib
import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.protobuf import tensor_bundle_pb2

from modelpool.worker import checkpoint_data, checkpoint_index
from modelpool.worker.checkpoint_data import PIECE_BYTES, DamagedError, DataFiles
from modelpool.worker.checkpoint_index import Entry, UnreadableError
from modelpool.worker.pace import LATELY, Pace, Use

FLOAT = 1
SNAPPY = 1
BIG, LITTLE = tensor_bundle_pb2.BundleHeaderProto.BIG, tensor_bundle_pb2.BundleHeaderProto.LITTLE

Items = Sequence[tuple[bytes, bytes]]


def masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def block(items: Items, kind: int = 0) -> bytes:
    """Keys share with the one before them what they can, but for every sixteenth."""
    body, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(items):
        if number % 16 == 0:
            restarts.append(len(body))
            before = b""
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(map(len, (key, before)))
        )
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    checked = body + bytes([kind])
    return checked + struct.pack("<I", masked(google_crc32c.value(checked)))


def table(items: Items, per_block: int = 3, kind: int = 0) -> bytes:
    data, handles = b"", []
    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        written = block(part, kind)
        handles.append((part[-1][0], varint(len(data)) + varint(len(written) - 5)))
        data += written
    meta, index = block([]), block(handles)
    at = len(data)
    footer = varint(at) + varint(len(meta) - 5) + varint(at + len(meta)) + varint(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def header(shards: int = 1, endianness: int = LITTLE) -> tuple[bytes, bytes]:
    return b"", tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, endianness=endianness).SerializeToString()


def stored(entry: Entry) -> bytes:
    proto = tensor_bundle_pb2.BundleEntryProto(
        dtype=entry.dtype, shard_id=entry.shard, offset=entry.offset, size=entry.size, crc32c=masked(entry.crc32c)
    )
    for size in entry.shape:
        proto.shape.dim.add(size=size)
    return bytes(proto.SerializeToString())


def index_of(entries: dict[str, Entry], shards: int = 1, per_block: int = 3) -> bytes:
    ordered = sorted((key.encode(), stored(entry)) for key, entry in entries.items())
    return table([header(shards), *ordered], per_block)


sizes = st.integers(0, 2**40)
entries_by_key = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda key: not key.startswith("\0")),
    st.builds(
        Entry,
        dtype=st.sampled_from([1, 2, 3, 9, 14, 19]),
        shape=st.lists(sizes, max_size=4).map(tuple),
        shard=st.integers(0, 9),
        offset=sizes,
        size=sizes,
        crc32c=st.integers(0, 2**32 - 1),
    ),
    max_size=12,
)


@given(entries_by_key, st.integers(1, 20))
def test_what_was_written_is_read(entries: dict[str, Entry], per_block: int) -> None:
    index = checkpoint_index.parse("/m/variables", index_of(entries, 10, per_block))
    assert index.entries == entries
    assert index.data_file(3) == "/m/variables.data-00003-of-00010"


@given(entries_by_key, st.data())
def test_a_damaged_index_is_refused(entries: dict[str, Entry], data: st.DataObject) -> None:
    whole = index_of(entries)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UnreadableError):
        assert checkpoint_index.parse("p", bytes(damaged)).entries == entries, "where nothing looks at the byte"
    with pytest.raises(UnreadableError):
        checkpoint_index.parse("p", whole[:at])


@given(st.binary(max_size=200))
def test_no_index_at_all(noise: bytes) -> None:
    with pytest.raises(UnreadableError):
        checkpoint_index.parse("p", noise)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (table([header(endianness=BIG)]), "not little endian"),
        (table([header()], kind=SNAPPY), "compressed"),
        (table([(b"a", b"")]), "no header"),
        (table([]), "no header"),
        (table([header(), (b"a", b"\xff")]), "parsing"),
        (table([header(), (b"\xff", b"")]), "utf-8"),
    ],
    ids=["big endian", "compressed", "no header", "empty", "no entry", "no text"],
)
def test_what_is_left_to_tensorflow(written: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        checkpoint_index.parse("p", written)


def test_tensors_in_slices_are_left_out() -> None:
    whole = Entry(FLOAT, (2,), 0, 0, 8, 7)
    sliced = tensor_bundle_pb2.BundleEntryProto(dtype=FLOAT)
    sliced.slices.add()
    items = [header(), (b"\0\1a\0\1\1\x82", stored(whole)), (b"a", sliced.SerializeToString()), (b"b", stored(whole))]
    assert checkpoint_index.parse("p", table(items)).entries == {"b": whole}


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return str(tmp_path / "variables")


def write(prefix: str, data: bytes, checksum: int | None = None) -> Entry:
    """A checkpoint of two shards: the second one's first byte is not of the tensor, the rest is."""
    Path(f"{prefix}.data-00001-of-00002").write_bytes(b"x" + data)
    entry = Entry(FLOAT, (len(data),), 1, 1, len(data), google_crc32c.value(data) if checksum is None else checksum)
    Path(f"{prefix}.index").write_bytes(index_of({"a": entry}, 2))
    return entry


def read(prefix: str) -> bytes:
    index = checkpoint_index.read(prefix)
    with DataFiles(index, index.entries.values()) as files:
        return bytes(files.read(index.entries["a"]).tobytes())


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_data_in_pieces(prefix: str, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    write(prefix, data)
    assert read(prefix) == data


def test_a_reader_that_had_to_wait_for_a_cpu_rests_after_its_piece(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses, rests = (Use(float(i), float(i > 0)) for i in range(4)), list[float]()
    monkeypatch.setattr(checkpoint_data, "Pace", lambda: Pace(lambda: next(uses), rests.append))
    write(prefix, bytes(3 * PIECE_BYTES))
    read(prefix)
    assert rests == [pytest.approx((1 - 1 / LATELY) ** i / LATELY) for i in range(3)]


def test_damaged_data(prefix: str) -> None:
    data = bytes(PIECE_BYTES + 7)
    entry = write(prefix, data)
    file = Path(f"{prefix}.data-00001-of-00002")
    file.write_bytes(b"x" + data[:-1] + b"\1")
    with pytest.raises(DamagedError, match="checksum"):
        read(prefix)
    file.write_bytes(b"x" + data[:-1])
    with pytest.raises(DamagedError, match="cut short"):
        read(prefix)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read(prefix)
    assert entry.size == len(data)
