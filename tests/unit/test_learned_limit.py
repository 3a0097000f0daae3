"""How many rows a run should have, whatever runs there are: a request with more rows than that goes by itself."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpool.worker.learned_limit import MAX_ROWS, LearnedLimit

TARGET_S = 0.1
RUNS = st.lists(st.tuples(st.integers(1, 8 * MAX_ROWS), st.floats(0, TARGET_S)), max_size=200)


@settings(deadline=None)
@given(RUNS, st.sampled_from([0.0, TARGET_S]))
@example([(16, 0.06)] * 4 + [(8, 0.01)] * 15 + [(16, 0.01)], TARGET_S)
def test_runs_of_any_size_that_take_any_time(runs: list[tuple[int, float]], target_s: float) -> None:
    limit = LearnedLimit(target_s)
    for rows, seconds in runs:
        limit.observe(rows, seconds)
        assert 1 <= limit.rows <= MAX_ROWS
        assert limit.rows_per_s >= 0


def test_a_run_of_the_size_that_is_tried_again() -> None:
    """It was forgotten just before it was asked whether it took too long, and that ended the worker."""
    limit = LearnedLimit(TARGET_S)
    for _ in range(300):
        limit.observe(8, TARGET_S / 100)
        limit.observe(16, TARGET_S)
    assert limit.rows in (8, 16)
