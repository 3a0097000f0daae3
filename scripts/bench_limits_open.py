"""How far what is not ours lets the tail of an open loop be: the whole way beside the plain server and a bare chain.

By turns, as `bench_open` takes them, each at a share of what it can do just then, or all at one rate; the generator is
our own, in all three. The chain (`bench_floor_chain`) has Envoy, pyvoy, ZeroMQ and TensorFlow, and nothing of ours: no
deadlines, no queue, no metrics; each request and each answer is a message of its own, where the pool sends in one what
came together. What it can do is another figure, and its share another rate. No bound, then, but a measure: a tail that
the chain has as well does not come from our part of the way.
"""

import math
from collections.abc import Mapping
from typing import Any

import bench_capacity
import bench_open
import bench_serving
import bench_targets
from bench_contenders import Contender
from bench_limits_report import CHAIN
from bench_serving import Cell, Options

_NAMES = {"whole": "the whole way", "plain": "the plain server", CHAIN: "the chain of what is not ours"}


def measure(ways: Mapping[str, Contender], share: float, arrivals: str, options: Options) -> dict[str, Cell]:
    """The cells of the target's workload, by `whole`, `plain` and CHAIN."""
    cells = bench_open.measure(list(ways.values()), [bench_targets.OPEN], share, arrivals, options)
    return dict(zip(ways, cells, strict=True))


def verdict(cells: Mapping[str, Cell]) -> str:
    """A sentence on what each way makes of the target, as `bench_targets` judges it."""
    at = bench_capacity.share_words(cells["whole"]["share"])
    wanted = f"{bench_targets.OPEN}, open loop at {at}: wanted p99 at most {bench_targets.OPEN_LIMIT:g}x p50"
    return "; ".join([wanted, *(f"{words} {_found(cells[name])}" for name, words in _NAMES.items())])


def _found(cell: Cell) -> str:
    rounds = cell["rounds"]
    value = bench_capacity.judged_tail(rounds)
    kept = f"kept in {sum(map(_is_kept, rounds))} of {len(rounds)} rounds"
    beside = ", ".join(filter(None, (kept, bench_serving.beside(bench_capacity.oddities(rounds), [cell]))))
    has = "has no figure" if value is None else "was saturated" if value == math.inf else f"has {value:.2f}x"
    return f"{has} ({beside})"


def _is_kept(turn: Mapping[str, Any]) -> bool:
    if turn["failures"] or turn["wrong"] or bench_capacity.is_saturated(turn):
        return False
    return bench_capacity.p99_by_p50(turn) <= bench_targets.OPEN_LIMIT


def print_report(cells: Mapping[str, Cell]) -> None:
    """The tables that a person reads."""
    bench_open.print_report(list(cells.values()))
    print("chain: Envoy, pyvoy, ZeroMQ and TensorFlow, each request in a message of its own;")
    print("a tail that it has as well does not come from our part of the way")
    print()
    print(verdict(cells))
