"""Packed fields of whole numbers: what the protobuf library reads and writes, in little memory."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelpool.worker import packed_numbers
from tensorflow.core.framework import tensor_pb2

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)


@given(st.lists(NUMBERS, max_size=40), st.sampled_from([1, 7, 64, packed_numbers._AT_A_TIME]))
def test_there_and_back_however_many_at_a_time(values: list[int], at_a_time: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_numbers, "_AT_A_TIME", at_a_time)
        packed = packed_numbers.pack(np.array(values, np.int64))
        assert tensor_pb2.TensorProto(int64_val=values).SerializeToString().endswith(packed)
        assert packed_numbers.unpack(packed).view(np.int64).tolist() == values


@pytest.mark.parametrize("before", [0, 1, packed_numbers._AT_A_TIME - 5, packed_numbers._AT_A_TIME])
@pytest.mark.parametrize("spoilt", [b"\x80" * 11 + b"\x01", b"\x80" * 100_000 + b"\x01", b"\x81"])
def test_numbers_that_are_too_long_or_have_no_end(before: int, spoilt: bytes) -> None:
    with pytest.raises(ValueError, match="number"):
        packed_numbers.unpack(b"\x05" * before + spoilt)
    assert packed_numbers.unpack(b"\x05" * before + b"\x81" * 9 + b"\x01")[:-1].tolist() == [5] * before


def test_many_numbers_take_little_more_than_themselves() -> None:
    numbers = np.random.default_rng(1).integers(2**31, size=500_000)
    tracemalloc.start()
    packed = packed_numbers.pack(numbers)
    assert tracemalloc.get_traced_memory()[1] < 4 * numbers.nbytes
    tracemalloc.reset_peak()
    found = packed_numbers.unpack(memoryview(packed))
    assert tracemalloc.get_traced_memory()[1] < len(packed) + 4 * numbers.nbytes
    tracemalloc.stop()
    np.testing.assert_array_equal(found.view(np.int64), numbers)
