"""When requests share a run: TF Serving's scheduler with its parameters and errors, and the one that learns."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire.status import InvalidArgument, PoolError, Unavailable
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batching import AutoBatcher, Batch, Batcher
from modelpool.worker.learned_limit import MAX_ROWS, LearnedLimit

FULL = "The batch scheduling queue to which this task was submitted is full"


@dataclass(eq=False)
class Task:
    rows: int
    key: str = "k"
    family: str = "f"


def names(batch: Batch[Task] | None) -> list[tuple[int, int]]:
    assert batch is not None
    return [(part.start, part.stop) for part in batch.parts]


def test_a_batch_waits_until_it_is_full() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=4, batch_timeout_micros=10))
    batcher.add(Task(2), 0)
    assert batcher.take(9_999) is None
    assert batcher.due_ns() == 10_000
    batcher.add(Task(2), 5)
    assert batcher.due_ns() == 0
    assert names(batcher.take(5)) == [(0, 2), (0, 2)]
    assert batcher.due_ns() is None
    assert len(batcher) == 0


def test_or_until_its_time_is_over() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=4, batch_timeout_micros=10))
    batcher.add(Task(1), 7)
    assert batcher.take(10_006) is None
    assert names(batcher.take(10_007)) == [(0, 1)]


def test_the_default_is_not_to_wait() -> None:
    batcher = Batcher[Task](Batching())
    batcher.add(Task(1), 5)
    batcher.add(Task(3), 6)
    assert names(batcher.take(6)) == [(0, 1), (0, 3)]


def test_what_does_not_fit_closes_the_batch() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=4, batch_timeout_micros=1000))
    batcher.add(Task(3), 0)
    batcher.add(Task(2), 1)
    assert names(batcher.take(2)) == [(0, 3)]
    assert batcher.take(2) is None


def test_keys_do_not_mix_and_the_oldest_goes_first() -> None:
    batcher = Batcher[Task](Batching())
    for number, key in enumerate("abab"):
        batcher.add(Task(1, key), number)
    first, second = batcher.take(9), batcher.take(9)
    assert first is not None
    assert second is not None
    assert [part.task.key for part in first.parts] == ["a", "a"]
    assert [part.task.key for part in second.parts] == ["b", "b"]


def refused(batcher: Batcher[Task], rows: int) -> str:
    with pytest.raises(PoolError) as caught:
        batcher.add(Task(rows), 0)
    assert isinstance(caught.value, Unavailable | InvalidArgument)
    return caught.value.message


def test_errors() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=4, max_enqueued_batches=2, batch_timeout_micros=9))
    assert refused(batcher, 5) == "Task size 5 is larger than maximum input batch size 4"
    for _ in range(2):
        batcher.add(Task(3), 0)
    assert refused(batcher, 2) == f"{FULL}; currently 2 batches enqueued and max_enqueued_batches is 2"
    batcher.add(Task(1), 0)
    split = Batcher[Task](
        Batching(
            max_batch_size=100, max_execution_batch_size=4, enable_large_batch_splitting=True, max_enqueued_batches=3
        )
    )
    assert refused(split, 101) == "Task size 101 is larger than maximum input batch size 100"
    split.add(Task(5), 0)
    assert refused(split, 8) == (
        f"{FULL}; task size is 8 but scheduling capacity is only 7 (num_enqueued_batches=2, max_enqueued_batches=3, "
        "open_batch_size=1, max_execution_batch_size=4)"
    )
    bounded = Batcher[Task](Batching(), max_tasks=1)
    bounded.add(Task(1), 0)
    assert refused(bounded, 1) == FULL


def test_a_batch_of_too_many_tasks_for_one_run_is_taken_in_pieces() -> None:
    """A run has so many entries of the flight recorder. For the queue it is one batch all the same."""
    batcher = Batcher[Task](Batching(max_batch_size=5, batch_timeout_micros=1000), max_parts=2)
    for _ in range(5):
        assert batcher.take(0) is None
        batcher.add(Task(1), 0)
    assert [names(batcher.take(0)) for _ in range(2)] == [[(0, 1), (0, 1)]] * 2
    assert names(batcher.take(0)) == [(0, 1)], "at once, for it was a full batch"
    assert len(batcher) == 0


def test_a_large_task_is_split() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=10, max_execution_batch_size=4, enable_large_batch_splitting=True))
    batcher.add(Task(3), 0)
    batcher.add(Task(6), 0)
    assert [names(batcher.take(0)) for _ in range(3)] == [[(0, 3), (0, 1)], [(1, 5)], [(5, 6)]]


def test_rows_are_padded_to_the_next_allowed_size() -> None:
    batcher = Batcher[Task](Batching(max_batch_size=8, allowed_batch_sizes=(2, 8)))
    assert [batcher.padded(rows) for rows in (1, 2, 3, 8)] == [2, 2, 8, 8]
    assert Batcher[Task](Batching()).padded(7) == 7


SETTINGS = st.builds(
    Batching,
    max_batch_size=st.integers(1, 9),
    batch_timeout_micros=st.integers(0, 3),
    max_enqueued_batches=st.integers(1, 4),
    enable_large_batch_splitting=st.booleans(),
    max_execution_batch_size=st.just(0),
)


@given(
    SETTINGS,
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from(["add", "take", "drop"]), st.integers(1, 10), st.sampled_from("ab"))),
)
def test_every_row_of_every_task_comes_once_and_in_order(
    settings: Batching, max_parts: int, steps: list[tuple[str, int, str]]
) -> None:
    """What was accepted and not dropped is taken, in whole, in batches of one key that are not too large."""
    batcher, now_ns = Batcher[Task](settings, max_parts=max_parts), 0
    accepted: list[Task] = []
    rows: Counter[Task] = Counter()

    def took(batch: Batch[Task] | None) -> bool:
        if batch is None:
            return False
        assert 0 < batch.rows <= settings.max_batch_size
        assert len(batch.parts) <= max_parts
        assert len({part.task.key for part in batch.parts}) == 1
        for part in batch.parts:
            assert part.start == rows[part.task], "the parts of a task come in their order"
            rows[part.task] = part.stop
        return True

    for step, size, key in steps:
        now_ns += 1000
        if step == "add":
            task = Task(size, key)
            try:
                batcher.add(task, now_ns)
            except PoolError:
                continue
            accepted.append(task)
        elif step == "take":
            took(batcher.take(now_ns))
        else:
            gone = [task for task in accepted if task.key == key and task.rows == size]
            batcher.drop(lambda task: task in gone)  # noqa: B023
            accepted = [task for task in accepted if task not in gone]
    while took(batcher.take(now_ns + 10_000)):
        pass
    assert all(rows[task] == task.rows for task in accepted)
    assert len(batcher) == 0
    assert batcher.due_ns() is None


# -- auto --------------------------------------------------------------------------------------------------------


def auto(limit: LearnedLimit) -> AutoBatcher[Task]:
    return AutoBatcher(lambda family: limit, lambda family, rows, took_s: limit.observe(rows, took_s))


def test_auto_takes_what_waits_up_to_the_limit() -> None:
    limit = LearnedLimit()
    limit.rows = 4
    batcher = auto(limit)
    assert batcher.take(0) is None
    for number in range(3):
        batcher.add(Task(2), number)
    assert names(batcher.take(9)) == [(0, 2), (0, 2)]
    assert names(batcher.take(9)) == [(0, 2)], "at once, however few"
    batcher.add(Task(9), 9)
    assert names(batcher.take(9)) == [(0, 9)], "too large, by itself"
    assert batcher.due_ns() is None


def test_auto_wants_no_more_than_the_next_batch() -> None:
    limit = LearnedLimit()
    limit.rows = 2
    batcher = auto(limit)
    assert batcher.wants()
    batcher.add(Task(1, "a"), 0)
    batcher.add(Task(1, "b"), 1)
    assert batcher.wants()
    batcher.add(Task(1, "a"), 2)
    assert not batcher.wants()
    batcher.drop(lambda task: task.key == "a")
    assert batcher.wants()
    assert len(batcher) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "take", "drop"]), st.sampled_from("abc"), st.integers(1, 5)), max_size=40
    )
)
def test_auto_wants_more_until_the_oldest_key_has_rows_enough(steps: list[tuple[str, str, int]]) -> None:
    limit = LearnedLimit()
    limit.rows = 6
    batcher = auto(limit)
    waiting: list[Task] = []
    for now_ns, (step, key, rows) in enumerate(steps):
        if step == "add":
            waiting.append(Task(rows, key))
            batcher.add(waiting[-1], now_ns)
        elif step == "drop":
            gone = [task for task in waiting if task.key == key and task.rows == rows]
            batcher.drop(lambda task, gone=gone: task in gone)  # type: ignore[misc]
            waiting = [task for task in waiting if task not in gone]
        elif (batch := batcher.take(now_ns)) is not None:
            taken = [part.task for part in batch.parts]
            assert taken[0] is waiting[0]
            assert taken == [task for task in waiting if task.key == taken[0].key][: len(taken)]
            waiting = [task for task in waiting if task not in taken]
        oldest = waiting[0].key if waiting else None
        assert batcher.wants() is (sum(task.rows for task in waiting if task.key == oldest) < limit.rows)
        assert len(batcher) == len(waiting)


def learned(cost_s: Any, target_s: float = 0.0, runs: int = 3000) -> LearnedLimit:
    """After so many runs of a model that is never short of requests; a run of n rows takes `cost_s(n)`."""
    limit = LearnedLimit(target_s)
    for _ in range(runs):
        limit.observe(limit.rows, cost_s(limit.rows))
    return limit


def test_a_run_that_costs_the_same_whatever_its_size_grows_to_the_end() -> None:
    assert learned(lambda rows: 0.01).rows == MAX_ROWS


def test_rows_that_cost_each_the_same_do_not_make_it_grow() -> None:
    assert learned(lambda rows: rows * 0.001).rows == 32


def test_where_more_rows_are_slower_it_stays_below() -> None:
    """As where a batch falls out of a cache."""
    assert learned(lambda rows: 0.01 if rows <= 128 else 0.001 * rows).rows == 128


def test_the_latency_wanted_bounds_it() -> None:
    limit = learned(lambda rows: 0.001 + rows * 0.0001, target_s=0.02)
    assert limit.rows == 64, "2 * 7.4 ms; twice as many would take 2 * 13.8 ms"
    assert limit.rows_per_s == pytest.approx(64 / 0.0074, rel=0.01)


def test_even_one_row_when_there_is_no_way_to_be_fast() -> None:
    assert learned(lambda rows: 1.0, target_s=0.01).rows == 1


def linear(rows: int) -> float:
    return 0.001 + rows * 0.0001


def observed(limit: LearnedLimit, cost_s: Callable[[int], float], runs: int) -> list[int]:
    """The rows of so many runs more."""
    sizes = []
    for _ in range(runs):
        sizes.append(limit.rows)
        limit.observe(limit.rows, cost_s(limit.rows))
    return sizes


def test_what_was_slow_for_a_while_is_not_slow_for_ever() -> None:
    """As while a neighbour loads a model: tenfold, for 50 runs."""
    limit = learned(linear, target_s=0.02)
    observed(limit, lambda rows: 10 * linear(rows), 50)
    assert limit.rows == 1
    observed(limit, linear, 300)
    assert limit.rows == 64


def test_one_stall_costs_it_next_to_nothing() -> None:
    limit = learned(linear, target_s=0.02)
    limit.observe(limit.rows, 1.0)
    assert limit.rows == 32
    sizes = observed(limit, linear, 200)
    assert limit.rows == 64
    assert sizes.count(32) < 50
    assert 128 not in sizes, "what lies above is not tried the sooner for it"


@pytest.mark.parametrize("seed", range(5))
def test_on_a_noisy_machine_it_keeps_what_is_good(seed: int) -> None:
    """Each run a tenth longer or shorter, and one of 500 stalled by 50 ms."""
    random = Random(seed)

    def noisy(rows: int) -> float:
        return linear(rows) * random.gauss(1.0, 0.1) + (0.05 if random.random() < 0.002 else 0.0)

    limit = learned(noisy, target_s=0.02)
    sizes = observed(limit, noisy, 5000)
    assert sum(size == 64 for size in sizes) > 4500
    assert sum(size > 64 for size in sizes) < 50


def test_a_trial_that_is_hopeless_takes_one_run() -> None:
    limit = learned(lambda rows: 0.01 if rows <= 128 else 0.001 * rows)
    sizes = observed(limit, lambda rows: 0.01 if rows <= 128 else 0.001 * rows, 10_000)
    assert set(sizes) == {128, 256}
    assert 3 <= sizes.count(256) <= 5, "every 2,000 runs"


@pytest.mark.parametrize("target_s", [0.0, 0.05])
@pytest.mark.parametrize(("before", "after"), [(1.0, 10.0), (10.0, 1.0)])
def test_it_follows_runs_that_cost_ten_times_as_much_or_as_little(target_s: float, before: float, after: float) -> None:
    limit = learned(lambda rows: before * linear(rows), target_s)
    observed(limit, lambda rows: after * linear(rows), 6000)
    fresh = learned(lambda rows: after * linear(rows), target_s)
    assert limit.rows in (fresh.rows, fresh.rows * 2, fresh.rows // 2)


def test_it_follows_a_model_that_changes() -> None:
    limit = learned(lambda rows: rows * 0.001)
    for _ in range(10_000):
        limit.observe(limit.rows, 0.01)
    assert limit.rows == MAX_ROWS
