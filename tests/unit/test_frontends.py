"""How soon a frontend that died is replaced."""

import pytest

from modelpool.supervisor.frontends import restart_delay_s


@pytest.mark.parametrize(("lived_s", "short_lives"), [(0.5, 1), (0.5, 2), (10.0, 0)])
def test_one_that_took_requests_is_replaced_at_once(lived_s: float, short_lives: int) -> None:
    assert restart_delay_s(True, lived_s, short_lives) == 0.0


def test_the_third_in_a_row_that_dies_young_waits() -> None:
    assert restart_delay_s(True, 0.5, 3) == 1.5


@pytest.mark.parametrize(("lived_s", "delay_s"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (60.0, 0.0)])
def test_one_that_never_took_requests_waits_for_its_time(lived_s: float, delay_s: float) -> None:
    assert restart_delay_s(False, lived_s, 1 if lived_s < 2 else 0) == delay_s
