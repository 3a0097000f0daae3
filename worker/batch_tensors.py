"""The tensors of several requests as one, row below row, and the outputs of the one run back to each. Pure; any thread.

After TF Serving's batching/batching_session.cc (MergeInputTensors, SplitOutputTensors) and batching_util.cc.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from modelpool.supervisor.wire.status import FailedPrecondition, InvalidArgument

from .plan import Array

Feeds = Mapping[str, Array]
# Tensors of more dimensions, and empty ones, are never padded (batching_util.cc AddPadding).
_MAX_PADDED_RANK = 6


def rows_of(feeds: Feeds) -> int:
    """How many rows a request has. Raises InvalidArgument when its tensors do not agree (ComputeTensorBatchSize)."""
    if not feeds:
        raise InvalidArgument("Batching Run() must have at least one input tensor")
    rows = -1
    for array in feeds.values():
        if array.ndim == 0:
            raise InvalidArgument("Batching Run() input tensors must have at least one dimension")
        if rows not in (-1, len(array)):
            raise InvalidArgument("Batching Run() input tensors must have equal 0th-dimension size")
        rows = len(array)
    return rows


def shapes_key(feeds: Feeds, *, padded: bool) -> Hashable:
    """What must be the same of two requests whose tensors can be put together. `padded`: inner sizes may differ."""
    return tuple(
        (name, feeds[name].dtype, feeds[name].ndim if padded and _can_be_padded(feeds[name]) else feeds[name].shape[1:])
        for name in (feeds if len(feeds) == 1 else sorted(feeds))
    )


def _can_be_padded(array: Array) -> bool:
    return array.ndim <= _MAX_PADDED_RANK and array.size > 0


def merged(parts: Sequence[Feeds], rows: int) -> dict[str, Array]:
    """The parts below each other, their inner dimensions padded to the largest by each tensor's first value.

    When they have less than `rows` rows, the first row of the last part is repeated: it is a row that the model takes.
    """
    return {name: _merged([part[name] for part in parts], rows) for name in parts[0]}


def _merged(arrays: list[Array], rows: int) -> Array:
    if len({array.shape[1:] for array in arrays}) > 1:
        inner = tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))
        arrays = [_padded(array, inner) for array in arrays]
    missing = rows - sum(map(len, arrays))
    if missing:
        arrays = [*arrays, np.repeat(arrays[-1][:1], missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded(array: Array, inner: tuple[int, ...]) -> Array:
    if array.shape[1:] == inner:
        return array
    grown = np.empty((len(array), *inner), array.dtype)
    grown[...] = array.flat[0] if array.dtype.names is None else array.reshape(-1)[:1]
    grown[tuple(slice(size) for size in array.shape)] = array
    return grown


def split(outputs: Sequence[Array], sizes: Sequence[int], rows: int) -> list[list[Array]]:
    """The outputs of a run of `rows` rows to parts of these sizes; what is behind them is padding.

    Raises FailedPrecondition for outputs that do not have a row for each of the inputs'.
    """
    for output in outputs:
        if output.ndim == 0:
            raise FailedPrecondition("Batched output tensor has 0 dimensions")
        if len(output) != rows:
            raise FailedPrecondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors"
            )
    parts, start = [], 0
    for size in sizes:
        parts.append([output[start : start + size] for output in outputs])
        start += size
    return parts


def joined(parts: Sequence[Sequence[Array]]) -> list[Array]:
    """The outputs of a request that was run in parts, in the order of its rows. Raises InvalidArgument.

    Parts that were padded among different neighbours may have outputs of different inner sizes.
    """
    try:
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    except ValueError as error:
        raise InvalidArgument(f"Outputs of the parts of a split request do not fit together: {error}") from error
