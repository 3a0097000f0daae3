"""CPUs that replicas divide among themselves."""

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.cpu_parts import part


def test_two_replicas() -> None:
    assert [part([0, 1], number, 2) for number in range(3)] == [(0,), (1,), (0,)]
    assert [part([8, 0, 2, 1], number, 2) for number in range(2)] == [(0, 1), (2, 8)]


def test_one_replica_has_all() -> None:
    assert part([3, 1], 5, 1) == (1, 3)


@given(st.sets(st.integers(0, 255), min_size=1, max_size=64), st.integers(1, 70))
def test_every_cpu_is_somebodys_and_parts_are_even(cpus: set[int], parts: int) -> None:
    found = [part(cpus, number, parts) for number in range(parts)]
    assert {cpu for each in found for cpu in each} == cpus
    sizes = [len(each) for each in found]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == max(len(cpus), parts)
