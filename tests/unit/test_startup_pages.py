"""What is given back of a mapped file: pages that are as in the file, and nothing else."""

import ctypes
import mmap
from pathlib import Path

from modelpool.frontend import startup_pages

SIZE = 64 * mmap.PAGESIZE


def resident_bytes(path: Path) -> int:
    """Of all mappings of this file."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return (
        sum(
            int(next(each for each in lines if each.startswith("Rss:")).split()[1])
            for line in lines
            if str(path) in line
        )
        * 1024
    )


def touched(mapping: mmap.mmap) -> bytes:
    return bytes(mapping[offset] for offset in range(0, SIZE, mmap.PAGESIZE))


def test_unchanged_pages_go_and_come_again(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(bytes(range(64)) * (SIZE // 64))
    with path.open("rb") as file, mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapping:
        before = touched(mapping)
        assert resident_bytes(path) == SIZE
        assert startup_pages.give_back(str(path)) == SIZE
        assert resident_bytes(path) == 0
        assert touched(mapping) == before


def test_what_can_be_written_to_stays(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(bytes(SIZE))
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    with path.open("rb") as file, mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, rights) as mapping:
        mapping[0] = 7
        assert startup_pages.give_back(str(path)) == 0
        assert mapping[0] == 7


def test_what_was_written_before_it_became_read_only_stays(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(bytes(SIZE))
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    with path.open("rb") as file, mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, rights) as mapping:
        mapping[0] = 7
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        libc = ctypes.CDLL(None)
        assert libc.mprotect(ctypes.c_void_p(address), SIZE, mmap.PROT_READ) == 0
        try:
            assert startup_pages.give_back(str(path)) == 0
            assert mapping[0] == 7
        finally:
            libc.mprotect(ctypes.c_void_p(address), SIZE, rights)


def test_of_this_program() -> None:
    assert startup_pages.give_back() >= 0
    assert startup_pages.give_back("/nowhere") == 0
