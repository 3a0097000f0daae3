"""How many CPUs there are for a worker, and what a weight is in niceness."""

import os
from pathlib import Path

import pytest

from modelpool.supervisor.wire import cpu_count
from modelpool.worker import cpu_share


@pytest.mark.parametrize(("weight", "nice"), [(100, 0), (80, 1), (50, 3), (10, 10), (1, 19)])
def test_weights(weight: int, nice: int) -> None:
    assert cpu_share.nice_of(weight) == nice


@pytest.mark.parametrize(
    ("text", "most"), [("max 100000", 1 << 20), ("50000 100000", 1), ("100001 100000", 2), ("nonsense", 1 << 20)]
)
def test_a_quota_of_the_container(tmp_path: Path, text: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_count.available(tmp_path) == min(most, len(os.sched_getaffinity(0)))


def test_without_a_quota(tmp_path: Path) -> None:
    assert cpu_count.available(tmp_path) == len(os.sched_getaffinity(0))


def test_confined_in_a_process_of_its_own() -> None:
    first = min(os.sched_getaffinity(0))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        cpu_share.confine([first], 50)
        os.write(write, f"{sorted(os.sched_getaffinity(0))} {os.getpriority(os.PRIO_PROCESS, 0)}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.read(read, 100).decode() == f"[{first}] {min(19, before + 3)}"
    os.close(read)
    os.close(write)
