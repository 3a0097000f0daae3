"""How much of some CPUs nobody used, by what the kernel counts."""

import time
from pathlib import Path

import pytest

from modelpool.supervisor.wire import cpu_idle
from modelpool.supervisor.wire.cpu_idle import LONG_S, IdleCpus

STAT = """cpu  9 9 9 9 9 9 9 9 0 0
cpu0 10 1 5 100 20 2 2 0 7 7
cpu1 50 0 0 50 0 0 0 0 0 0
cpu10 1 1 1 1 1 1 1 1 0 0
intr 1 2 3
"""


class Kernel:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.counts: tuple[int, int] | None = (0, 0)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(cpu_idle, "ticks", lambda names: self.counts)

    def goes_on(self, idle: int, total: int, took_s: float = 0.1) -> None:
        assert self.counts is not None
        self.counts = self.counts[0] + idle, self.counts[1] + total
        self.now_s += took_s


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_the_part_since_the_last_look(kernel: Kernel) -> None:
    cpus = IdleCpus([0])
    assert cpus.look() == 0.0, "nothing is known yet"
    kernel.goes_on(3, 10)
    assert cpus.look() == pytest.approx(0.3)
    kernel.goes_on(10, 10, LONG_S)
    assert cpus.look() == 1.0
    assert cpus.look() == 0.0, "no time has passed by the kernel's clock"


def test_what_was_idle_since_a_look_long_ago_says_nothing_of_now(kernel: Kernel) -> None:
    cpus = IdleCpus([0])
    cpus.look()
    kernel.goes_on(1000, 1000, LONG_S + 0.1)
    assert cpus.look() == 0.0
    kernel.goes_on(1, 10)
    assert cpus.look() == pytest.approx(0.1), "and from there on it is known again"


def test_a_kernel_that_does_not_say(kernel: Kernel) -> None:
    cpus = IdleCpus([0])
    cpus.look()
    kernel.counts = None
    assert cpus.look() == 0.0


@pytest.mark.parametrize(
    ("names", "found"),
    [({"cpu0"}, (120, 140)), ({"cpu0", "cpu1"}, (170, 240)), ({"cpu1"}, (50, 100)), (set[str](), (0, 0))],
)
def test_what_the_kernel_counts(names: set[str], found: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    assert cpu_idle.ticks(names, tmp_path / "stat") == found


@pytest.mark.parametrize("text", [None, "cpu0 1 2 three 4 5 6 7 8\n"])
def test_a_file_that_is_none(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert cpu_idle.ticks({"cpu0"}, tmp_path / "stat") is None
