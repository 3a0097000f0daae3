"""Whether requests of a signature may share a run without a difference to anyone. Pure but for the model.

What is checked, in this order: that the signature declares its first dimension to vary, of every input and output; that
nothing below its outputs changes state; and, with inputs that the warmup has seen or made-up ones, that the rows of two
inputs put together give the same answers as apart. Where no input is to be had, the first two are what there is.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import PoolError
from modelpool.supervisor.wire.tensors import DTYPES

from . import batch_tensors
from .plan import Array, Model

log = logging.getLogger(__name__)

# How far a row's answer may be from that of the same row alone: kernels sum in another order.
_RTOL, _ATOL = 1e-3, 1e-5
_MAX_MADE_UP_BYTES = 16 << 20
_ROWS = 2

Feeds = Mapping[str, Array]
Seen = Sequence[tuple[Feeds, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sound`, and by what it was found, or why it is not."""

    sound: bool
    why: str


def judge(model: Model, changing: Callable[[Iterable[str]], list[str]], seen: Seen) -> dict[str, Verdict]:
    """Each signature by key. `changing`: kinds of operations below these tensors that change state.

    `seen`: what the model was run with before, feeds and fetches.
    """
    verdicts = {}
    for key in sorted(model.signatures):
        if key.startswith("__saved_model"):
            continue
        verdicts[key] = _judge(model, model.signatures[key], changing, seen)
        names = fields(signature=key, sound=verdicts[key].sound, why=verdicts[key].why)
        log.info("batching %s", names)
    return verdicts


def _judge(model: Model, signature: Any, changing: Callable[[Iterable[str]], list[str]], seen: Seen) -> Verdict:
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        if not infos:
            return Verdict(False, f"it has no {kind}")
        for alias in sorted(infos):
            if not _varies(infos[alias]):
                return Verdict(False, f"the first dimension of {kind} {alias} is fixed or unknown")
    fetches = [signature.outputs[alias].name for alias in sorted(signature.outputs)]
    changes = changing(fetches)
    if changes:
        return Verdict(False, f"it changes state: {', '.join(changes)}")
    inputs = {info.name for info in signature.inputs.values()}
    found = [feeds for feeds, of in seen if feeds.keys() == inputs and set(of) <= set(fetches)]
    if found:
        return _measured(model, found[0], found[-1], fetches, "by warmup requests")
    made_up = _made_up(signature)
    if made_up is None:
        return Verdict(True, "by its declaration and graph; no inputs to try it with")
    return _measured(model, *made_up, fetches, "by made-up inputs")


def _varies(info: Any) -> bool:
    """Rank known, at least 1, first dimension unknown."""
    shape = info.tensor_shape
    return bool(info.HasField("tensor_shape") and not shape.unknown_rank and shape.dim and shape.dim[0].size == -1)


def _made_up(signature: Any) -> tuple[Feeds, Feeds] | None:
    """Two inputs of random numbers; None for other dtypes than numbers, and for sizes out of all proportion."""
    random = np.random.default_rng(0)
    pair: list[dict[str, Array]] = [{}, {}]
    for info in signature.inputs.values():
        dtype = DTYPES[info.dtype].numpy if info.dtype in DTYPES else None
        shape = [_ROWS, *(dim.size if dim.size >= 0 else 1 for dim in list(info.tensor_shape.dim)[1:])]
        if dtype is None or dtype.kind not in "fiub" or np.prod(shape) * dtype.itemsize > _MAX_MADE_UP_BYTES:
            return None
        for feeds in pair:
            numbers = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
            feeds[info.name] = numbers.astype(dtype)
    return pair[0], pair[1]


def _measured(model: Model, one: Feeds, other: Feeds, fetches: list[str], how: str) -> Verdict:
    try:
        sizes = [batch_tensors.rows_of(feeds) for feeds in (one, other)]
    except PoolError as error:
        return Verdict(False, f"{error.message}, {how}")
    if batch_tensors.shapes_key(one, padded=False) != batch_tensors.shapes_key(other, padded=False):
        other, sizes[1] = one, sizes[0]
    try:
        apart = [model.run(feeds, fetches) for feeds in (one, other)]
    except PoolError as error:
        return Verdict(True, f"by its declaration and graph; it refuses what it was tried with: {error.message[:200]}")
    try:
        rows = sum(sizes)
        together = batch_tensors.split(model.run(batch_tensors.merged([one, other], rows), fetches), sizes, rows)
    except PoolError as error:
        return Verdict(False, f"{error.message}, {how}")
    for want, got in zip(apart, together, strict=True):
        if not all(_same(a, b) for a, b in zip(want, got, strict=True)):
            return Verdict(False, f"rows have other answers together than apart, {how}")
    return Verdict(True, f"{how}: rows have the same answers together as apart")


def _same(want: Array, got: Array) -> bool:
    if want.shape != got.shape:
        return False
    if want.dtype.kind not in "fc":
        return bool((want == got).all())
    return bool(np.allclose(want.astype(np.complex128), got.astype(np.complex128), _RTOL, _ATOL, equal_nan=True))
