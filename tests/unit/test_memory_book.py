"""What is remembered of GPU memory, and that a spoiled file costs nothing but the memory of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor import memory_book
from modelpool.supervisor.memory_book import DEFAULT_OVERHEAD_BYTES, FILE, MAX_OVERHEAD_BYTES, MAX_SERVABLES, MemoryBook
from modelpool.supervisor.wire.ids import ServableId

M1, M2, OTHER = ServableId("m", 1), ServableId("m", 2), ServableId("other", 1)


def test_the_most_that_was_seen_counts() -> None:
    book = MemoryBook()
    assert book.note(M1, "H1", 500, 0)
    assert not book.note(M1, "H1", 400, 0)
    assert book.note(M1, "H1", 600, 0)
    assert (book.need_bytes(M1, "H1"), book.need_bytes(M1, "A1"), book.need_bytes(OTHER, "H1")) == (600, None, None)


def test_a_new_version_is_taken_for_what_the_others_were() -> None:
    book = MemoryBook()
    book.note(M1, "H1", 500, 0)
    assert book.need_bytes(M2, "H1") == 500
    book.note(M2, "H1", 300, 0)
    assert book.need_bytes(M2, "H1") == 300


def test_the_least_overhead_that_was_seen_counts() -> None:
    book = MemoryBook()
    assert book.overhead_bytes("H1") == DEFAULT_OVERHEAD_BYTES
    book.note(M1, "H1", 500, 0)
    assert book.overhead_bytes("H1") == DEFAULT_OVERHEAD_BYTES
    book.note(M1, "H1", 900, 100)
    book.note(OTHER, "H1", 900, 600)
    book.note(M1, "H1", 950, 200)
    assert book.overhead_bytes("H1") == 300
    assert book.overhead_bytes("A1") == DEFAULT_OVERHEAD_BYTES


def test_what_the_allocator_keeps_in_reserve_is_not_taken_for_cudas() -> None:
    """TensorFlow's allocator doubles its regions: with 4.5 GiB in use it may hold 8."""
    book = MemoryBook()
    book.note(M1, "H1", 8 << 30, 9 << 29)
    assert book.overhead_bytes("H1") == MAX_OVERHEAD_BYTES
    book.note(M1, "H1", 8 << 30, (8 << 30) - 700)
    assert book.overhead_bytes("H1") == 700


def test_it_survives_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert memory_book.read(folder) == MemoryBook()
    book = MemoryBook()
    book.note(M1, "H1", 500, 100)
    book.note(OTHER, "A1", 7, 0)
    memory_book.write(folder, book.to_json())
    assert memory_book.read(folder) == book
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_it_does_not_grow_without_end() -> None:
    book = MemoryBook()
    for version in range(MAX_SERVABLES + 10):
        book.note(ServableId("m", version), "H1", 1, 0)
    assert len(book.needs) == MAX_SERVABLES
    assert ServableId("m", 9) not in book.needs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "needs": [], "overheads": {}}',
        '{"format": 1, "needs": [["m", 1]], "overheads": {}}',
        '{"format": 1, "needs": [["m", "1", {}]], "overheads": {}}',
        '{"format": 1, "needs": [["m", 1, {"H1": -5}]], "overheads": {}}',
        '{"format": 1, "needs": [["m", 1, {"H1": 1.5}]], "overheads": {}}',
        '{"format": 1, "needs": [], "overheads": {"H1": true}}',
        '{"format": 1, "needs": [], "overheads": []}',
        '{"format": 1, "needs": 5, "overheads": {}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_book_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert memory_book.read(tmp_path) == MemoryBook()


@given(st.binary(max_size=200))
def test_nor_does_garbage_stop_anybody(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("book")
    (folder / FILE).write_bytes(raw)
    assert memory_book.read(folder) == MemoryBook()
