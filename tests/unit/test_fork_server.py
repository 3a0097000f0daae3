"""How soon a fork server that died is started again."""

import pytest

from modelpool.supervisor.fork_server import restart_delay_s


@pytest.mark.parametrize("young_deaths", [0, 1])
def test_a_single_death_delays_no_load(young_deaths: int) -> None:
    assert restart_delay_s(young_deaths) == 0.0


def test_one_that_cannot_live_is_started_less_and_less_often_and_never_given_up() -> None:
    assert [restart_delay_s(count) for count in (2, 3, 4, 5, 6, 10_000)] == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
