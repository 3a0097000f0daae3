"""A file that is polled is parsed only when there is something new about it."""

import pytest

from modelpool.supervisor.polled_file import PolledFile
from modelpool.supervisor.wire.status import InvalidArgument, PoolError


class Disk:
    """A file that holds a number, to which what it is read against is added."""

    text = "1"
    parsed = 0
    full = False

    def read(self) -> str:
        return self.text

    def parse(self, text: str, against: int) -> int:
        self.parsed += 1
        if self.full:
            raise MemoryError
        if not text.isdigit():
            raise InvalidArgument(f"no number: {text}")
        return int(text) + against


def test_the_same_text_against_the_same_is_parsed_once() -> None:
    disk = Disk()
    file = PolledFile(disk.read, disk.parse)
    assert [file.read(1), file.read(1), disk.parsed] == [2, 2, 1]
    assert [file.read(2), disk.parsed] == [3, 2]
    disk.text = "5"
    assert [file.read(2), file.read(2), disk.parsed] == [7, 7, 3]


def test_what_is_wrong_is_said_again_and_found_out_once() -> None:
    disk = Disk()
    file = PolledFile(disk.read, disk.parse)
    assert file.read(0) == 1
    disk.text = "x"
    for _ in range(3):
        with pytest.raises(PoolError) as error:
            file.read(0)
        assert error.value.status == InvalidArgument("no number: x").status
    assert disk.parsed == 2
    disk.text = "1"
    assert file.read(0) == 1


def test_what_may_pass_is_tried_again() -> None:
    disk = Disk()
    disk.full = True
    file = PolledFile(disk.read, disk.parse)
    for _ in range(2):
        with pytest.raises(MemoryError):
            file.read(0)
    disk.full = False
    assert file.read(0) == 1
