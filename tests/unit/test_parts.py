"""A payload in parts is read as its bytes are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend.quarantine import fingerprint
from modelpool.frontend.settling import Lookalikes
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.parts import PARTS_BYTES, Parts, gathered, pieces_of, readable

PIECES = st.lists(st.binary(max_size=20), max_size=10)


@given(PIECES, st.integers(-250, 250), st.integers(-250, 250))
def test_reads_as_bytes(pieces: list[bytes], begin: int, end: int) -> None:
    parts, whole = Parts(pieces), b"".join(pieces)
    assert (len(parts), bytes(parts)) == (len(whole), whole)
    assert parts == whole
    assert parts == Parts([whole])
    assert parts != whole + b"x"
    assert parts[begin:end] == whole[begin:end]
    assert parts[:end] == whole[:end]
    assert parts[begin:] == whole[begin:]
    if -len(whole) <= begin < len(whole):
        assert parts[begin] == whole[begin]
    else:
        with pytest.raises(IndexError, match="expected a place in"):
            parts[begin]
    with pytest.raises(ValueError, match="expected a step of 1, got 2"):
        parts[::2]


@given(PIECES)
def test_views_are_pieces_as_well(pieces: list[bytes]) -> None:
    parts = Parts([memoryview(piece) for piece in pieces])
    assert bytes(parts) == b"".join(pieces)
    assert isinstance(parts[1:3], bytes)
    assert parts[1:3] == b"".join(pieces)[1:3]


def test_what_is_small_is_joined() -> None:
    small = gathered([b"a", memoryview(b"b")])
    assert (type(small), small) == (bytes, b"ab")
    large = gathered([b"a" * PARTS_BYTES, b"b"])
    assert isinstance(large, Parts)
    assert list(pieces_of(large)) == [b"a" * PARTS_BYTES, b"b"]
    one = b"c" * PARTS_BYTES
    assert gathered([one]) is one
    assert list(pieces_of(one)) == [one]


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=3))
def test_what_is_read_is_the_one_piece_or_all_parts(pieces: list[bytes]) -> None:
    parts = Parts([memoryview(piece) for piece in pieces])
    read = readable(parts)
    assert bytes(read) == b"".join(pieces)
    assert (read is parts) is (len(pieces) != 1)
    assert readable(b"".join(pieces)) == b"".join(pieces)


def test_the_same_request_is_known_again_however_it_came() -> None:
    whole = bytes(range(256)) * 1000
    ways = [whole, Parts([whole[:100], whole[100:]]), Parts([whole[:5000], whole[5000:90_000], whole[90_000:]])]
    assert len({fingerprint(Method.PREDICT, way) for way in ways}) == 1
    for suspect in ways:
        same = Lookalikes([suspect])
        assert all(way in same for way in ways)
        assert Parts([whole[:-1], b"x"]) not in same
        assert Parts([whole[:1000], b"x", whole[1001:]]) not in same
