"""Tensors of several requests as one, and back: shapes, padding, and the errors of TF Serving."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.wire.status import FailedPrecondition, InvalidArgument
from modelpool.supervisor.wire.tensors import DTYPES
from modelpool.worker import batch_tensors


def test_rows() -> None:
    assert batch_tensors.rows_of({"x": np.ones((3, 2)), "y": np.ones(3)}) == 3
    for feeds, text in (
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": np.ones(())}, "Batching Run() input tensors must have at least one dimension"),
        ({"x": np.ones(2), "y": np.ones(3)}, "Batching Run() input tensors must have equal 0th-dimension size"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            batch_tensors.rows_of(feeds)
        assert caught.value.message == text


def key(*arrays: Any, padded: bool) -> Any:
    return [batch_tensors.shapes_key({"x": array}, padded=padded) for array in arrays]


def test_what_can_be_put_together() -> None:
    one, wider, other = np.ones((1, 2), np.float32), np.ones((4, 3), np.float32), np.ones((1, 2), np.float64)
    first, second, third = key(one, wider, other, padded=False)
    assert len({first, second, third}) == 3
    first, second, third = key(one, wider, other, padded=True)
    assert first == second != third
    first, second = key(np.ones((1, 2)), np.ones((1, 0)), padded=True)
    assert first != second, "an empty tensor has no value to pad with"
    first, second = key(np.ones((1,) * 7), np.ones((1, 2) + (1,) * 5), padded=True)
    assert first != second, "nor has one of more than six dimensions"


def test_padding_repeats_a_real_row_and_the_first_value() -> None:
    parts = [{"x": np.array([[1, 2]])}, {"x": np.array([[3], [4]])}]
    assert batch_tensors.merged(parts, 5)["x"].tolist() == [[1, 2], [3, 3], [4, 3], [3, 3], [3, 3]]
    words = np.array([[b"a", b"b"]], object)
    assert batch_tensors.merged([{"x": words}, {"x": words[:, :1]}], 2)["x"].tolist() == [[b"a", b"b"], [b"a", b"a"]]


def test_one_part_is_not_copied() -> None:
    array = np.ones((2, 2))
    assert batch_tensors.merged([{"x": array}], 2)["x"] is array


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 3))
def test_there_and_back(sizes: list[int], padding: int) -> None:
    total = sum(sizes) + padding
    parts = [{"x": np.arange(size * 2).reshape(size, 2) + 100 * n} for n, size in enumerate(sizes)]
    merged = batch_tensors.merged(parts, total)["x"]
    assert len(merged) == total
    for part, (back,) in zip(parts, batch_tensors.split([merged], sizes, total), strict=True):
        assert (back == part["x"]).all()


def array_of(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> Any:
    """Small numbers, which every dtype has; no two next to each other are alike, except of bool."""
    numbers = np.arange(seed, seed + int(np.prod(shape))).reshape(shape)
    if dtype.kind == "O":
        return np.array([b"t%d" % number for number in numbers.flat], object).reshape(shape)
    if dtype.names is not None:
        return np.ascontiguousarray((numbers % 7).astype(dtype[0])).view(dtype)
    return (numbers % 3 == 0).astype(dtype) if dtype.kind == "b" else (numbers % 7).astype(dtype)


FED = sorted({row.numpy for row in DTYPES.values()} | {row.stored for row in DTYPES.values()}, key=str)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FED), st.integers(0, 3)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=5),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_dtype_there_and_back(
    inputs: list[tuple[Any, int]], parts: list[tuple[int, int]], padding: int, varied: bool
) -> None:
    """Several inputs of any dtype and rank, whose inner sizes are alike or, padded, are not."""
    feeds = [
        {
            f"i{number}": array_of(dtype, (rows, *[inner if varied else 2] * rank), 7 * part + number)
            for number, (dtype, rank) in enumerate(inputs)
        }
        for part, (rows, inner) in enumerate(parts)
    ]
    assert len({batch_tensors.shapes_key(each, padded=varied) for each in feeds}) == 1
    sizes = [batch_tensors.rows_of(each) for each in feeds]
    assert sizes == [rows for rows, _ in parts]
    total = sum(sizes) + padding
    merged = batch_tensors.merged(feeds, total)
    back = batch_tensors.split([merged[name] for name in feeds[0]], sizes, total)
    for sent, got in zip(feeds, back, strict=True):
        for (name, array), rows in zip(sent.items(), got, strict=True):
            assert rows.dtype == array.dtype == merged[name].dtype
            same = tuple(map(slice, array.shape))
            assert rows[same].tolist() == array.tolist()
            rest = np.ones(rows.shape, bool)
            rest[same] = False
            assert all(value == array.reshape(-1)[0] for value in rows[rest])
    last = feeds[-1]
    for name, array in merged.items():
        assert len(array) == total
        for row in array[sum(sizes) :]:
            assert row.tolist() == array[sum(sizes) - len(last[name])].tolist(), "the first row of the last part"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (np.float32(1), "Batched output tensor has 0 dimensions"),
        (
            np.ones(2),
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
        ),
    ],
)
def test_outputs_without_a_row_for_each(output: Any, text: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        batch_tensors.split([np.asarray(output)], [3], 3)
    assert caught.value.message == text


def test_parts_of_a_split_request() -> None:
    assert batch_tensors.joined([[np.array([1]), np.array([2])], [np.array([3]), np.array([4])]])[1].tolist() == [2, 4]
    with pytest.raises(InvalidArgument, match="do not fit together"):
        batch_tensors.joined([[np.ones((1, 2))], [np.ones((1, 3))]])
