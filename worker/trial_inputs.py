"""Pairs of inputs by which a model shows whether it minds what lies beside a row. Pure.

The two of a pair have other values, for a row beside its own copy tells nothing: it is its own mean.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import prod
from typing import Any

import numpy as np

from modelpool.supervisor.wire.tensors import DTYPES

from . import batch_tensors
from .plan import Array

Feeds = Mapping[str, Array]

_MAX_MADE_UP_BYTES = 16 << 20
_ROWS = 2
# Whoever splits texts gets other numbers of words than there are rows.
_TEXTS = (b"a b c", b"1"), (b"", b"2 3")


@dataclass(frozen=True, slots=True)
class Pair:
    """`how` it was come by. Of a pair that is not `telling` only a difference means something."""

    one: Feeds
    other: Feeds
    how: str
    telling: bool = True


def pairs(signature: Any, seen: Sequence[Feeds]) -> Iterator[Pair]:
    """The best first. `seen`: what the signature has taken before."""
    if seen:
        first = seen[0]
        other = _another(first, seen[1:])
        if other is not None:
            yield Pair(first, other, "by warmup requests")
            return
        turned = {name: np.roll(array, 1) for name, array in first.items()}
        if _differ(first, turned):
            yield Pair(first, turned, "by a warmup request")
    made_up = _made_up(signature, seen[0] if seen else {})
    if made_up is not None:
        yield made_up
    if seen:
        yield Pair(seen[0], seen[0], "by a warmup request", telling=False)


def _another(first: Feeds, others: Iterable[Feeds]) -> Feeds | None:
    key = batch_tensors.shapes_key(first, padded=False)
    same = (feeds for feeds in others if batch_tensors.shapes_key(feeds, padded=False) == key)
    return next((feeds for feeds in same if _differ(first, feeds)), None)


def _differ(one: Feeds, other: Feeds) -> bool:
    return not all(_alike(array, other[name]) for name, array in one.items())


def _alike(one: Array, other: Array) -> bool:
    """The same values, of which not a number is one. Bytes will not do: there are two zeros."""
    if one.shape != other.shape:
        return False
    # np.isnan does not take all dtypes.
    return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124


def _made_up(signature: Any, like: Feeds) -> Pair | None:
    """Random numbers and texts, of the inner sizes that are declared, or those of `like`, or 1; None for other dtypes,
    and for sizes out of all proportion.
    """
    random = np.random.default_rng(0)
    one, other = {}, {}
    for info in signature.inputs.values():
        dtype = DTYPES[info.dtype].numpy if info.dtype in DTYPES else None
        known = like[info.name].shape[1:] if info.name in like else ()
        inner = known or [dim.size if dim.size >= 0 else 1 for dim in list(info.tensor_shape.dim)[1:]]
        shape = (_ROWS, *inner)
        if dtype is None or dtype.names is not None or prod(shape) * dtype.itemsize > _MAX_MADE_UP_BYTES:
            return None
        one[info.name], other[info.name] = _values(dtype, shape, random)
    return Pair(one, other, "by made-up inputs")


def _values(dtype: np.dtype[Any], shape: tuple[int, ...], random: np.random.Generator) -> tuple[Array, Array]:
    if dtype.kind == "O":
        texts = [list(islice(cycle(each), prod(shape))) for each in _TEXTS]
        return np.array(texts[0], object).reshape(shape), np.array(texts[1], object).reshape(shape)
    if dtype.kind in "iub":
        bits = random.integers(0, 2, shape)
        return bits.astype(dtype), (1 - bits).astype(dtype)
    return random.standard_normal(shape).astype(dtype), random.standard_normal(shape).astype(dtype)
