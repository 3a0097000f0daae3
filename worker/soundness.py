"""Whether requests of a signature may share a run without a difference to anyone. Pure but for the model.

What is checked, in this order: that the signature declares its first dimension to vary, of every input and output; that
nothing below its outputs changes state; and, with inputs that the warmup has seen or made-up ones, that the rows of two
inputs put together give the same answers as apart. Where it takes none of them, the first two are what there is.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import PoolError

from . import batch_tensors, trial_inputs
from .plan import Array, Model
from .trial_inputs import Feeds, Pair

log = logging.getLogger(__name__)

# How far a row's answer may be from that of the same row alone: kernels sum in another order. Others must be equal.
_RTOL = {
    **{"float32": 1e-3, "float64": 1e-3, "complex64": 1e-3, "complex128": 1e-3},
    **{"float16": 4e-3, "bfloat16": 3e-2},
}
_ATOL = 1e-5

Seen = Sequence[tuple[Feeds, Sequence[str]]]
Changing = Callable[[Iterable[str]], list[str]]
"""Kinds of operations below these tensors that change state."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sound`, and by what it was found, or why it is not."""

    sound: bool
    why: str


def judge(model: Model, changing: Changing, seen: Seen) -> dict[str, Verdict]:
    """Each signature by key. `seen`: what the model was run with before, feeds and fetches."""
    verdicts = {}
    for key in sorted(model.signatures):
        if key.startswith("__saved_model"):
            continue
        verdicts[key] = _judge(model, model.signatures[key], changing, seen)
        names = fields(signature=key, sound=verdicts[key].sound, why=verdicts[key].why)
        log.info("batching %s", names)
    return verdicts


def divisible(model: Model, changing: Changing, seen: Seen) -> dict[str, Verdict]:
    """Whether the rows of one request may be run apart, of each signature by key, each part where it has a state of
    its own. A model that declares its first dimension to be fixed may take others all the same.
    """
    verdicts = {}
    for key, signature in sorted(model.signatures.items()):
        fetches = [signature.outputs[alias].name for alias in sorted(signature.outputs)]
        declared = all(_varies(info) for side in (signature.inputs, signature.outputs) for info in side.values())
        verdicts[key] = _changed(changing, fetches) or _tried(
            model, signature, fetches, seen, otherwise=Verdict(declared, "by its declaration")
        )
        log.info("splitting %s", fields(signature=key, sound=verdicts[key].sound, why=verdicts[key].why))
    return verdicts


def _judge(model: Model, signature: Any, changing: Changing, seen: Seen) -> Verdict:
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        if not infos:
            return Verdict(False, f"it has no {kind}")
        for alias in sorted(infos):
            if not _varies(infos[alias]):
                return Verdict(False, f"the first dimension of {kind} {alias} is fixed or unknown")
    fetches = [signature.outputs[alias].name for alias in sorted(signature.outputs)]
    return _changed(changing, fetches) or _tried(
        model, signature, fetches, seen, otherwise=Verdict(True, "by its declaration and graph")
    )


def _changed(changing: Changing, fetches: list[str]) -> Verdict | None:
    """None for what changes no state. It is not to be tried otherwise: that would change it."""
    changes = changing(fetches)
    return Verdict(False, f"it changes state: {', '.join(changes)}") if changes else None


def _tried(model: Model, signature: Any, fetches: list[str], seen: Seen, *, otherwise: Verdict) -> Verdict:
    """`otherwise`: where it takes nothing that it could be tried with."""
    inputs = {info.name for info in signature.inputs.values()}
    found = [feeds for feeds, of in seen if feeds.keys() == inputs and set(of) <= set(fetches)]
    refusal = "no inputs to try it with"
    for pair in trial_inputs.pairs(signature, found):
        try:
            why_not = _difference(model, pair, fetches)
        except PoolError as error:
            refusal = f"it refuses what it was tried with: {error.message[:200]}"
            continue
        if why_not:
            return Verdict(False, f"{why_not}, {pair.how}")
        if pair.telling:
            return Verdict(True, f"{pair.how}: rows have the same answers together as apart")
    return Verdict(otherwise.sound, f"{otherwise.why}; {refusal}")


def _varies(info: Any) -> bool:
    """Rank known, at least 1, first dimension unknown."""
    shape = info.tensor_shape
    return bool(info.HasField("tensor_shape") and not shape.unknown_rank and shape.dim and shape.dim[0].size == -1)


def _difference(model: Model, pair: Pair, fetches: list[str]) -> str:
    """What tells the rows of the two together from apart; "" for nothing. Raises PoolError when it refuses one."""
    first = model.run(pair.one, fetches)
    apart = [first, first if pair.other is pair.one else model.run(pair.other, fetches)]
    try:
        sizes = [batch_tensors.rows_of(feeds) for feeds in (pair.one, pair.other)]
        rows = sum(sizes)
        feeds = batch_tensors.merged([pair.one, pair.other], rows)
        together = batch_tensors.split(model.run(feeds, fetches), sizes, rows)
    except PoolError as error:
        return error.message
    for want, got in zip(apart, together, strict=True):
        if not all(_same(a, b) for a, b in zip(want, got, strict=True)):
            return "rows have other answers together than apart"
    return ""


def _same(want: Array, got: Array) -> bool:
    if want.shape != got.shape:
        return False
    tolerance = _RTOL.get(want.dtype.name)
    if tolerance is None:
        return bool((want == got).all())
    return bool(np.allclose(want.astype(np.complex128), got.astype(np.complex128), tolerance, _ATOL, equal_nan=True))
