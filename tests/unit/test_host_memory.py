"""How much memory there is: of the host, or what its control groups leave to a pool. The kernel is played by files."""

from pathlib import Path

import pytest

from modelpool.supervisor import host_memory

GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree:        1 kB\nMemAvailable:   8388608 kB\n")
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


V1 = ("memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("a", "memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(("own", "names"), [("0::/a\n", V2), ("4:memory:/a\n", V1)])
def test_what_is_left_of_a_limit_but_for_what_files_take(proc: Path, own: str, names: tuple[str, ...]) -> None:
    folder, limit, usage, cache = names
    mount = groups(proc, own, {f"{folder}/{limit}": str(4 * GIB)})
    (mount / folder / usage).write_text(f"{3 * GIB}\n")
    assert host_memory.available_bytes(proc, mount) == GIB
    (mount / folder / "memory.stat").write_text(f"cache 5\n{cache} {GIB}\nswap 0\n")
    assert host_memory.available_bytes(proc, mount) == 2 * GIB
    (mount / folder / usage).write_text(f"{6 * GIB}\n")
    assert host_memory.available_bytes(proc, mount) == 0


def test_without_a_limit_the_host_s_memory_is_left(proc: Path) -> None:
    assert host_memory.available_bytes(proc, groups(proc, "0::/a\n", {})) == 8 * GIB


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_where_the_kernel_names_no_group_of_ours_none_has_a_limit(
    proc: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    read_text = Path.read_text

    def read(path: Path) -> str:
        if path.name == "cgroup":
            raise error
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert host_memory.total_bytes(proc, proc) == 16 * GIB
    assert host_memory.available_bytes(proc, proc) == 8 * GIB


def test_this_host_has_some() -> None:
    assert host_memory.total_bytes() > GIB // 4
    assert 0 < host_memory.available_bytes() <= host_memory.total_bytes()


@pytest.mark.parametrize(
    ("there_is", "frontends", "expected"),
    [
        (24 * GIB, 1, 12 * GIB),
        (14 * GIB, 1, 7 * GIB),
        (10 * GIB, 1, 7 * GIB),
        (5 * GIB, 1, 4 * GIB),
        (64 * GIB, 4, 8 * GIB),
        (24 * GIB, 2, 7 * GIB),
        (5 * GIB, 2, 4 * GIB),
    ],
)
def test_what_a_frontend_may_have(there_is: int, frontends: int, expected: int) -> None:
    assert host_memory.of_a_frontend(there_is, frontends) == expected
