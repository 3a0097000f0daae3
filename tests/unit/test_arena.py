"""Shared memory for payloads: who gets which place, what a reader takes, and what memory is left afterwards."""

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor import host_memory
from modelpool.supervisor.arenas import Arenas, SharedMemory
from modelpool.supervisor.wire import arena, sockets
from modelpool.supervisor.wire.arena import HEAD_BYTES, KEEP_BYTES, Arena, Reader, Space
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import InvalidArgument

PAGE = mmap.PAGESIZE
MIB = 1 << 20
SIZE = 64 * PAGE


class Pair:
    """A writer and a reader of one arena, as two processes have them."""

    def __init__(self, size_bytes: int) -> None:
        self.fd = arena.create("test", size_bytes)
        self.writer = Arena(os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR))
        self.reader = Reader(os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY))

    @property
    def used_bytes(self) -> int:
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        os.close(self.fd)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(SIZE)
    yield made
    made.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20 * PAGE), st.integers(0, 1000)), max_size=200))
def test_places_never_overlap_and_all_come_back(steps: list[tuple[bool, int, int]]) -> None:
    space = Space(SIZE)
    taken: dict[int, int] = {}
    for takes, size, which in steps:
        if takes:
            begin = space.take(size)
            pages = -(-max(size, 1) // PAGE) * PAGE
            if begin is None:
                assert all(end - start < pages for start, end in space.free)
            else:
                assert begin % PAGE == 0
                assert all(begin + pages <= other or other + length <= begin for other, length in taken.items())
                taken[begin] = pages
        elif taken:
            begin = list(taken)[which % len(taken)]
            assert space.give(begin) == begin + taken.pop(begin)
        free = sum(end - start for start, end in space.free)
        assert free + sum(taken.values()) == SIZE
        assert all(left[1] < right[0] for left, right in zip(space.free, space.free[1:], strict=False))
    for begin in list(taken):
        space.give(begin)
    assert list(space.free) == [(0, SIZE)]


def test_what_is_not_taken_is_not_given_back() -> None:
    space = Space(SIZE)
    assert space.take(1) == 0
    space.give(0)
    with pytest.raises(KeyError):
        space.give(0)


@given(st.lists(st.binary(max_size=3 * PAGE), min_size=1, max_size=8), st.integers(0, 10_000))
def test_a_reader_finds_what_was_put(pieces: list[bytes], aligned_at: int) -> None:
    pair = Pair(SIZE)
    block = pair.writer.put(pieces, aligned_at)
    assert block is not None
    whole = b"".join(pieces)
    assert pair.reader.read(block.reference) == whole
    mapped, start, size_bytes = pair.reader.view(block.reference)
    assert mapped[start : start + size_bytes] == whole
    assert (start + aligned_at) % HEAD_BYTES == 0
    pair.close()


def test_many_pieces_are_one_payload() -> None:
    pair = Pair(16 * MIB)
    pieces = [bytes((number % 251,)) * 700 for number in range(5000)]
    block = pair.writer.put(pieces)
    assert block is not None
    assert pair.reader.read(block.reference) == b"".join(pieces)
    pair.close()


def test_what_the_kernel_writes_by_halves_is_whole(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where a signal comes, or over 2 GiB."""

    def half(fd: int, pieces: Sequence[bytes], at: int) -> int:
        joined = b"".join(pieces)
        return os.pwrite(fd, joined[: len(joined) // 2], at)

    monkeypatch.setattr(os, "pwritev", half)
    block = pair.writer.put([b"abc" * 7000, b"d" * 11])
    assert block is not None
    assert pair.reader.read(block.reference) == b"abc" * 7000 + b"d" * 11


def test_without_memory_there_is_no_block_and_its_place_is_free(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(fd: int, pieces: Sequence[bytes], at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", no_memory)
        assert pair.writer.put([b"x" * (SIZE // 2)]) is None
    assert pair.writer.put([b"y" * (SIZE - 2 * PAGE)]) is not None


def test_no_room_is_no_block_and_harms_no_other(pair: Pair) -> None:
    first = pair.writer.put([b"x" * (SIZE // 2)])
    assert first is not None
    assert pair.writer.put([b"y" * (SIZE // 2)]) is None
    assert pair.reader.read(first.reference) == b"x" * (SIZE // 2)
    pair.writer.free(first)
    assert pair.writer.put([b"y" * (SIZE - 2 * PAGE)]) is not None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_wrong_reference_is_an_error(start: int, size: int, serial: int) -> None:
    pair = Pair(SIZE)
    block = pair.writer.put([b"x" * 100])
    assert block is not None
    wrong = arena._REFERENCE.pack(start, size, serial)
    for look in (pair.reader.read, pair.reader.view):
        if wrong != block.reference:
            with pytest.raises(InvalidArgument, match="reference: "):
                look(wrong)
        with pytest.raises(InvalidArgument, match="expected 24 bytes, got 5"):
            look(b"12345")
    pair.close()


def test_a_reference_that_is_nearly_right_is_an_error(pair: Pair) -> None:
    block = pair.writer.put([b"x" * (SIZE - 2 * PAGE), b"y" * PAGE])  # up to a page before the end
    assert block is not None
    start, size, serial = arena._REFERENCE.unpack(block.reference)
    assert pair.reader.read(block.reference)[-1:] == b"y"
    wrong = [(start + by, size, serial) for by in (-64, -8, -1, 1, 8, 64)]
    wrong += [(start, other, serial) for other in (0, size - 1, size + 1, SIZE - start, SIZE - start + 1, 2**64 - 1)]
    wrong += [(start, size, serial + by) for by in (-1, 1)]
    for each in wrong:
        for look in (pair.reader.read, pair.reader.view):
            with pytest.raises(InvalidArgument, match="reference: "):
                look(arena._REFERENCE.pack(*each))


def test_a_block_that_was_used_again_is_not_taken_for_the_first(pair: Pair) -> None:
    first = pair.writer.put([b"first"])
    assert first is not None
    pair.writer.free(first)
    second = pair.writer.put([b"other"])
    assert second is not None
    assert second.begin == first.begin
    with pytest.raises(InvalidArgument, match="expected block 1 of 5 bytes at 64, found block 2 of 5 bytes"):
        pair.reader.read(first.reference)
    assert pair.reader.read(second.reference) == b"other"


def test_a_reader_cannot_write_and_nobody_can_change_the_size(pair: Pair) -> None:
    block = pair.writer.put([b"x"])
    assert block is not None
    mapped, start, _ = pair.reader.view(block.reference)
    with pytest.raises(TypeError):
        mapped[start] = 1
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(pair.fd, size)


def test_memory_goes_back() -> None:
    pair = Pair(KEEP_BYTES + 64 * MIB)
    small = pair.writer.put([bytes(2 * MIB)])
    big = pair.writer.put([bytes(KEEP_BYTES), bytes(32 * MIB)])
    assert small is not None
    assert big is not None
    assert pair.used_bytes >= KEEP_BYTES + 34 * MIB
    pair.writer.free(big)
    assert pair.used_bytes <= KEEP_BYTES  # at once, but for what is kept to be used again
    assert not pair.writer.trim()
    assert pair.used_bytes > 32 * MIB  # it was just in use
    assert pair.writer.trim()
    assert 2 * MIB <= pair.used_bytes < 3 * MIB
    assert pair.reader.read(small.reference) == bytes(2 * MIB)
    pair.writer.free(small)
    again = pair.writer.put([b"x" * MIB])
    assert again is not None
    pair.writer.free(again)
    for _ in range(2):
        pair.writer.trim()
    assert pair.used_bytes == 0
    assert pair.writer.idle
    pair.close()


def test_a_view_outlives_its_reader_and_the_descriptor_of_the_supervisor(tmp_path: Path) -> None:
    arenas = Arenas(tmp_path, SIZE, 100 * SIZE)
    arenas.make(Peer.FRONTEND, Incarnation(7))
    link = sockets.arena(tmp_path, Peer.FRONTEND, Incarnation(7))
    writer, reader = Arena.open(link), Reader.open(link)
    assert writer is not None
    assert reader is not None
    block = writer.put([b"what stays"])
    assert block is not None
    mapped, start, size_bytes = reader.view(block.reference)
    arenas.remove(Peer.FRONTEND, Incarnation(7))
    assert Reader.open(link) is None
    assert Arena.open(link) is None
    assert list(tmp_path.iterdir()) == []
    assert reader.read(block.reference) == b"what stays"
    reader.close()
    writer.close()
    assert mapped[start : start + size_bytes] == b"what stays"


def test_all_are_gone_with_the_supervisor_and_none_are_made_where_none_are_wanted(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    arenas = Arenas(tmp_path, SIZE, 100 * SIZE)
    for peer in (Peer.WORKER, Peer.FRONTEND):
        arenas.make(peer, Incarnation(1))
    assert len(list(tmp_path.iterdir())) == 2
    arenas.remove(Peer.WORKER, Incarnation(2))
    arenas.close()
    none = Arenas(tmp_path, 0, 100 * SIZE)
    none.make(Peer.WORKER, Incarnation(1))
    none.remove(Peer.WORKER, Incarnation(1))
    assert list(tmp_path.iterdir()) == []
    assert os.listdir("/proc/self/fd") == before


def test_all_together_never_have_more_than_their_limit(tmp_path: Path) -> None:
    limit_bytes = 40 * MIB
    arenas = Arenas(tmp_path, 4 * MIB, limit_bytes)
    sizes = []
    for number in range(1, 60):
        arenas.make(Peer.WORKER, Incarnation(number))
        link = sockets.arena(tmp_path, Peer.WORKER, Incarnation(number))
        sizes.append(link.stat().st_size if link.exists() else 0)
    assert sizes[:2] == [4 * MIB, 4 * MIB]
    assert sizes == sorted(sizes, reverse=True), "the later they come, the less there is for them"
    assert sizes[-1] == 0, "those that come last do without"
    assert min(size for size in sizes if size) >= MIB
    assert arenas.taken == SharedMemory(0, sum(sizes), limit_bytes)
    assert limit_bytes - 8 * MIB <= sum(sizes) <= limit_bytes
    arenas.remove(Peer.WORKER, Incarnation(1))
    arenas.make(Peer.WORKER, Incarnation(100))
    assert sockets.arena(tmp_path, Peer.WORKER, Incarnation(100)).stat().st_size > MIB, "what is free again is taken"
    arenas.close()


def test_a_frontend_that_comes_back_has_its_size_again(tmp_path: Path) -> None:
    arenas = Arenas(tmp_path, 4 * MIB, 44 * MIB, frontends=2)

    def size_bytes(writer: Peer, number: int) -> int:
        arenas.make(writer, Incarnation(number))
        link = sockets.arena(tmp_path, writer, Incarnation(number))
        return link.stat().st_size if link.exists() else 0

    sizes = [size_bytes(Peer.FRONTEND, 1)]
    for number in range(2, 12):
        size_bytes(Peer.WORKER, number)
    sizes.append(size_bytes(Peer.FRONTEND, 42))
    assert sizes == [4 * MIB, 4 * MIB], "however late, before it came first"
    assert 0 < size_bytes(Peer.FRONTEND, 43) < 4 * MIB, "one more than there are to be"
    arenas.remove(Peer.FRONTEND, Incarnation(43))
    for number in (1, 42):
        arenas.remove(Peer.FRONTEND, Incarnation(number))
        assert size_bytes(Peer.WORKER, 100 + number) < 4 * MIB, "nobody else gets it meanwhile"
        assert size_bytes(Peer.FRONTEND, 200 + number) == 4 * MIB
    assert arenas.taken.reserved_bytes <= 44 * MIB
    arenas.close()


def test_where_none_are_wanted_nobody_asks_how_much_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(host_memory, "total_bytes", lambda: asked.append(1) or 10 * MIB)
    assert Arenas(tmp_path, 0, 0).taken.limit_bytes == 0
    assert Arenas(tmp_path, 1, 7).taken.limit_bytes == 7
    assert asked == []
    assert Arenas(tmp_path, 1, 0).taken.limit_bytes == 5 * MIB


def test_what_is_in_use_is_known(tmp_path: Path) -> None:
    arenas = Arenas(tmp_path, SIZE, 100 * SIZE)
    for number in (1, 2):
        arenas.make(Peer.WORKER, Incarnation(number))
    writer = Arena.open(sockets.arena(tmp_path, Peer.WORKER, Incarnation(1)))
    assert writer is not None
    assert writer.put([bytes(SIZE // 2)]) is not None
    assert SIZE // 2 <= arenas.taken.used_bytes <= SIZE // 2 + 64 * 1024
    assert arenas.taken.reserved_bytes == 2 * SIZE
    writer.close()
    arenas.close()
    assert arenas.taken == SharedMemory(0, 0, 100 * SIZE)
    assert Arenas(tmp_path, 0, 100 * SIZE).taken.limit_bytes == 0


@pytest.mark.parametrize("error", [OSError("no such file"), ValueError("not a number")])
def test_where_nobody_says_how_much_memory_there_is_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse() -> int:
        raise error

    monkeypatch.setattr(host_memory, "total_bytes", refuse)
    arenas = Arenas(tmp_path, SIZE, 0, frontends=2)
    arenas.make(Peer.FRONTEND, Incarnation(1))
    assert not list(tmp_path.iterdir())
    assert arenas.taken.limit_bytes == 0
    arenas.close()
