"""When a slot is tried again: at once, after a while, after a long while, never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.restart import Death, GiveUp, RestartHistory, RestartPolicy, TryAgain


def history(policy: RestartPolicy | None = None, jitter: float = 0.0) -> RestartHistory:
    return RestartHistory(policy or RestartPolicy(), lambda: jitter)


def test_a_worker_that_had_answered_is_replaced_at_once() -> None:
    assert history().died(Death.AFTER_READY, 100.0) == TryAgain(100.0)


def test_deaths_before_ready_back_off_exponentially_up_to_a_limit() -> None:
    one = history(RestartPolicy(max_load_retries=0))
    waits = []
    for _ in range(7):
        decision = one.died(Death.BEFORE_READY, 0.0)
        assert isinstance(decision, TryAgain)
        waits.append(decision.at_s)
    assert waits == [1, 2, 4, 8, 16, 32, 64]
    assert one.died(Death.BEFORE_READY, 0.0) == GiveUp("8 deaths before it was ready", 60.0)


def test_deaths_before_ready_count_for_the_intensity() -> None:
    one = history(RestartPolicy(max_restarts=2, period_s=60.0))
    assert one.died(Death.BEFORE_READY, 0.0) == TryAgain(1.0)
    assert one.died(Death.AFTER_READY, 1.0) == TryAgain(1.0)
    assert one.died(Death.BEFORE_READY, 2.0) == GiveUp("3 deaths within 60 s", 62.0)


def test_what_never_ran_is_started_at_once_and_then_ever_less_often_without_end() -> None:
    one = history(RestartPolicy(max_load_retries=0, max_restarts=0))
    waits = []
    for _ in range(10):
        decision = one.died(Death.NOT_STARTED, 0.0)
        assert isinstance(decision, TryAgain)
        waits.append(decision.at_s)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 64, 64]
    one.became_ready(0.0)
    assert one.died(Death.NOT_STARTED, 0.0) == TryAgain(0.0)


def test_a_slot_that_was_looked_after_starts_afresh() -> None:
    one = history(RestartPolicy(max_restarts=0, half_open_s=60.0))
    assert one.died(Death.AFTER_READY, 0.0) == GiveUp("1 deaths within 60 s", 60.0)
    assert one.died(Death.AFTER_READY, 0.0) == GiveUp("1 deaths within 60 s", 120.0)
    one.forget()
    assert one.died(Death.AFTER_READY, 0.0) == GiveUp("1 deaths within 60 s", 60.0)


def test_jitter_shortens_the_wait_by_a_quarter_at_most() -> None:
    assert history(jitter=0.999999).died(Death.BEFORE_READY, 0.0) == TryAgain(pytest.approx(0.75, abs=1e-3))


def test_a_failed_load_waits_for_the_load_retry_interval() -> None:
    policy = RestartPolicy(max_load_retries=2, load_retry_interval_s=60.0)
    one = history(policy)
    assert one.died(Death.LOAD_FAILED, 0.0) == TryAgain(60.0)
    assert one.died(Death.LOAD_FAILED, 60.0) == TryAgain(120.0)
    assert one.died(Death.LOAD_FAILED, 120.0) == GiveUp("3 loads failed", 180.0)


def test_a_permanent_error_is_the_end() -> None:
    assert history().died(Death.PERMANENT, 5.0) == GiveUp("the load failed for good", None)


def test_no_retries_means_one_attempt() -> None:
    assert history(RestartPolicy(max_load_retries=0)).died(Death.LOAD_FAILED, 0.0) == GiveUp("1 loads failed", 60.0)


def test_half_open_tries_come_at_growing_intervals() -> None:
    one = history(RestartPolicy(max_load_retries=0, half_open_s=60.0, half_open_limit_s=200.0))
    waits = []
    for _ in range(4):
        decision = one.died(Death.LOAD_FAILED, 0.0)
        assert isinstance(decision, GiveUp)
        waits.append(decision.retry_at_s)
    assert waits == [60, 120, 200, 200]


def test_intensity_counts_deaths_within_the_period_only() -> None:
    one = history(RestartPolicy(max_restarts=2, period_s=60.0))
    for at_s in (0.0, 70.0, 140.0, 199.0):
        assert one.died(Death.AFTER_READY, at_s) == TryAgain(at_s)
    assert one.died(Death.AFTER_READY, 199.5) == GiveUp("3 deaths within 60 s", 259.5)


def test_becoming_ready_forgets_failed_loads_but_not_deaths() -> None:
    one = history(RestartPolicy(max_load_retries=1, max_restarts=1))
    assert isinstance(one.died(Death.LOAD_FAILED, 0.0), TryAgain)
    one.became_ready(0.0)
    assert isinstance(one.died(Death.LOAD_FAILED, 1.0), TryAgain)
    one.became_ready(0.0)
    assert isinstance(one.died(Death.AFTER_READY, 2.0), TryAgain)
    one.became_ready(0.0)
    assert isinstance(one.died(Death.AFTER_READY, 3.0), GiveUp)


@given(
    deaths=st.lists(st.tuples(st.sampled_from([Death.AFTER_READY, Death.BEFORE_READY]), st.floats(0, 30)), max_size=60),
    max_restarts=st.integers(1, 5),
)
def test_never_more_restarts_at_once_than_the_intensity_allows(
    deaths: list[tuple[Death, float]], max_restarts: int
) -> None:
    policy = RestartPolicy(max_restarts=max_restarts, period_s=60.0)
    one, now_s, at_once = history(policy), 0.0, []
    for death, gap_s in deaths:
        now_s += gap_s
        decision = one.died(death, now_s)
        if isinstance(decision, TryAgain):
            assert decision.at_s >= now_s
            if death is Death.AFTER_READY:
                at_once.append(now_s)
        elif death is Death.AFTER_READY:
            at_once.clear()
        assert len([at_s for at_s in at_once if at_s > now_s - policy.period_s]) <= max_restarts


def test_a_model_may_fail_for_years() -> None:
    one = history()
    for _ in range(3000):
        decision = one.died(Death.NOT_STARTED, 0.0)
    assert decision == TryAgain(64.0)
    other = history(RestartPolicy(max_load_retries=0))
    for _ in range(3000):
        given_up = other.died(Death.LOAD_FAILED, 0.0)
    assert isinstance(given_up, GiveUp)
    assert given_up.retry_at_s == 3600.0


def test_a_slot_on_trial_that_dies_again_waits_longer() -> None:
    one = history(RestartPolicy(max_restarts=1, period_s=60.0))
    waits = []
    for at_s in (0.0, 1.0, 61.0, 181.0):
        one.became_ready(at_s)
        decision = one.died(Death.AFTER_READY, at_s + 0.5)
        if isinstance(decision, GiveUp):
            assert decision.retry_at_s is not None
            waits.append(decision.retry_at_s - at_s - 0.5)
    assert waits == [60.0, 120.0, 240.0]


def test_a_quiet_period_ends_the_trial() -> None:
    one = history(RestartPolicy(max_restarts=1, period_s=60.0))
    for at_s in (0.0, 1.0):
        one.became_ready(at_s)
        one.died(Death.AFTER_READY, at_s)
    one.became_ready(100.0)
    assert one.died(Death.AFTER_READY, 160.0) == TryAgain(160.0)
