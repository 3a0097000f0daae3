"""In the caller's thread or in the pool: whichever is clearly faster, on a clock of its own."""

from collections import Counter

import numpy as np
import pytest

from modelpool.worker import thread_choice


@pytest.mark.parametrize(
    ("in_thread_s", "in_pool_s", "pool"),
    [(0.001, 0.002, False), (0.02, 0.01, True), (0.02, 0.019, False), (1.0, 0.5, True)],
)
def test_the_faster_way(in_thread_s: float, in_pool_s: float, pool: bool) -> None:
    now_s = 0.0
    runs: Counter[tuple[bool, int]] = Counter()

    def run(in_pool: bool, number: int) -> None:
        nonlocal now_s
        first = not any(way == in_pool for way, _ in runs)
        runs[in_pool, number] += 1
        now_s += 5.0 if first else in_pool_s if in_pool else in_thread_s

    assert thread_choice.pool_is_faster(run, 2, lambda: now_s) is pool
    assert sum(runs.values()) <= 2 * 31
    assert {number for _, number in runs} == {0, 1}
    measured_s = now_s - 10.0
    assert measured_s < 3 * (in_thread_s + in_pool_s) + 0.5


def test_inputs_of_different_kinds() -> None:
    seen = [({"x": np.ones((n % 3, 2))}, ["y"]) for n in range(30)]
    assert [feeds["x"].shape for feeds, _ in thread_choice.sample(seen)] == [(0, 2), (1, 2), (2, 2)]
    assert len(thread_choice.sample([({"x": np.ones(n)}, ["y"]) for n in range(30)])) == thread_choice.MAX_INPUTS
