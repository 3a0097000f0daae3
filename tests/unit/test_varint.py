"""Variable-length integers, written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire.varint import read_varint, varint


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_what_is_written_is_read(value: int, before: bytes, after: bytes) -> None:
    data = before + varint(value) + after
    assert read_varint(memoryview(data), len(before)) == (value, len(data) - len(after))


def test_what_is_no_number() -> None:
    with pytest.raises(IndexError):
        read_varint(b"\x80", 0)
    with pytest.raises(ValueError, match="more than ten bytes"):
        read_varint(b"\x80" * 10 + b"\1", 0)
