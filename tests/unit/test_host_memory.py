"""How much memory there is: of the host, or what its control groups leave to a pool. The kernel is played by files."""

from pathlib import Path

import pytest

from modelpool.supervisor import host_memory

GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree:        1 kB\n")
    return tmp_path


def groups(proc: Path, own: str, limits: dict[str, str]) -> Path:
    """Our own group as the kernel says it, and the limits of groups by their files."""
    (proc / "self/cgroup").write_text(own)
    for name, limit in limits.items():
        file = proc / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return proc / "cgroup"


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("", {}, 16 * GIB),
        ("0::/a\n", {"a/memory.max": "max"}, 16 * GIB),
        ("0::/a\n", {"a/memory.max": str(2 * GIB)}, 2 * GIB),
        ("0::/a/b\n", {"a/memory.max": str(2 * GIB), "a/b/memory.max": "max"}, 2 * GIB),
        ("0::/\n", {"memory.max": str(3 * GIB)}, 3 * GIB),
        ("0::/a\n", {"a/memory.max": str(64 * GIB)}, 16 * GIB),
        ("4:memory:/a\n3:cpu,cpuacct:/z\n", {"memory/a/memory.limit_in_bytes": str(GIB)}, GIB),
        ("4:hugetlb,memory:/a\n", {"memory/a/memory.limit_in_bytes": NO_LIMIT_V1}, 16 * GIB),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": str(4 * GIB)}, 4 * GIB),
    ],
)
def test_the_least_of_all_limits(proc: Path, own: str, limits: dict[str, str], expected: int) -> None:
    assert host_memory.total_bytes(proc, groups(proc, own, limits)) == expected


def test_this_host_has_some() -> None:
    assert host_memory.total_bytes() > GIB // 4
