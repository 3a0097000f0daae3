"""Memory limits: what a figure means, and what the manager does about it."""

import mmap
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modelpool.supervisor import cgroup, memory_watch, oom
from modelpool.supervisor.cgroup import MemoryGroups
from modelpool.supervisor.exits import ExitKind
from modelpool.supervisor.memory_limit import Sample, Verdict, judge
from modelpool.supervisor.oom import OomWatch
from modelpool.supervisor.oom import Verdict as OomVerdict
from modelpool.supervisor.own_group import Version
from modelpool.supervisor.wire import arena
from modelpool.supervisor.wire.arena import Arena, Reader
from modelpool.supervisor.wire.ids import Incarnation
from tests.unit.manager_world import KILLED, World

MIB = 1 << 20
SAMPLE = Sample(50 * MIB, 100 * MIB, 1000 * MIB, "watch")


@pytest.mark.parametrize(
    ("used", "fresh", "ready_for_s", "load_s", "verdict"),
    [
        (50, 20, 100.0, 1.0, Verdict.FINE),
        (84, 20, 100.0, 1.0, Verdict.FINE),
        (85, 20, 100.0, 1.0, Verdict.RENEW),
        (100, 20, 100.0, 1.0, Verdict.RENEW),
        (101, 20, 100.0, 1.0, Verdict.OVER),
        (101, None, 0.0, 1.0, Verdict.OVER),
        (90, None, 100.0, 1.0, Verdict.FINE),  # it is not ready yet
        (90, 85, 100.0, 1.0, Verdict.FINE),  # a fresh one would be no smaller
        (90, 20, 1.9, 1.0, Verdict.FINE),  # it has just been loaded
        (90, 20, 0.9, 0.1, Verdict.FINE),
    ],
)
def test_what_a_sample_means(used: int, fresh: int | None, ready_for_s: float, load_s: float, verdict: Verdict) -> None:
    sample = replace(SAMPLE, used_bytes=used * MIB)
    fresh_bytes = None if fresh is None else fresh * MIB
    assert judge(sample, fresh_bytes=fresh_bytes, ready_for_s=ready_for_s, load_s=load_s) is verdict


def test_a_fresh_one_must_fit_beside_the_old_one() -> None:
    sample = replace(SAMPLE, used_bytes=90 * MIB, available_bytes=10 * MIB)
    assert judge(sample, fresh_bytes=20 * MIB, ready_for_s=100.0, load_s=1.0) is Verdict.FINE


def serving() -> tuple[World, Incarnation]:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    uses(world, incarnation, 20)
    world.now_s += 10.0
    return world, incarnation


def uses(world: World, incarnation: Incarnation, mib: int) -> bool:
    due = world.manager.memory_used(incarnation, replace(SAMPLE, used_bytes=mib * MIB), world.now_s)
    world.advance()
    return due


def other(world: World, known: Incarnation) -> Incarnation:
    (incarnation,) = set(world.alive) - {known}
    return incarnation


def test_a_leaking_worker_is_replaced_before_it_hits_the_wall() -> None:
    world, old = serving()
    assert not uses(world, old, 84)
    assert uses(world, old, 86)
    new = other(world, old)
    assert world.alive[new].urgent
    assert not uses(world, old, 90), "one replacement is enough"
    assert world.routed() == {old}
    world.speak(new)
    world.ack()
    assert world.routed() == {new}
    world.ack()
    world.bury()
    assert set(world.alive) == {new}
    assert not uses(world, new, 20)
    assert world.servable(1).slots[0].restarts == 1


def test_one_that_starts_near_its_limit_is_not_replaced_again_and_again() -> None:
    world, old = serving()
    uses(world, old, 90)
    new = other(world, old)
    world.speak(new)
    world.ack()
    world.ack()
    world.bury()
    for _ in range(20):
        assert not uses(world, new, 88)
        world.sleep(5.0)
    assert set(world.alive) == {new}


def test_one_that_goes_over_its_limit_is_killed_and_replaced() -> None:
    world, old = serving()
    assert uses(world, old, 101)
    assert old in world.doomed
    world.bury()
    exit_ = world.slot(1).last_exit
    assert exit_ is not None
    assert (exit_.kind, exit_.cause) == (
        ExitKind.MEMORY_LIMIT,
        "killed by SIGKILL: over its memory limit of 100 MiB",
    )
    world.ready(1)


def test_a_load_may_go_over_the_limit_too() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.incarnation(1)
    assert uses(world, incarnation, 101)
    assert not uses(world, incarnation, 102), "it is killed already"
    world.bury()
    assert world.slot(1).state == "backoff"


def test_a_sample_of_the_dead_means_nothing() -> None:
    world, old = serving()
    world.die(old, KILLED)
    assert not uses(world, old, 200)


# -- the kernel's files -----------------------------------------------------------------------------------------------


def test_private_memory_is_what_is_dirty_or_swapped(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(
        "55-ff ---p 00000000 00:00 0    [rollup]\n"
        "Rss:  900 kB\nPrivate_Clean:  5 kB\nPrivate_Dirty:  7 kB\nSwapPss: 3 kB\n"
    )
    (tmp_path / "statm").write_text("1000 300 200 1 0 5 0\n")
    assert memory_watch.private_bytes(tmp_path) == 10 * 1024
    assert memory_watch.at_most_bytes(tmp_path) == 100 * 4096


PROCESS = Path("/proc/self")


def in_a_new_process(measure: Callable[[], int]) -> int:
    """In this one, what other tests have left behind may be freed meanwhile."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result(60)


def ballast_of_30_mib() -> int:
    before = memory_watch.private_bytes(PROCESS)
    ballast = bytearray(30 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    return memory_watch.private_bytes(PROCESS) - before


def ballast_of_20_mib_beside_a_request_of_40() -> int:
    writer = arena.create("f1", 64 * MIB)
    reader = Reader(os.open(f"/proc/self/fd/{writer}", os.O_RDONLY))
    block = Arena(writer).put([b"x" * (40 * MIB)])
    assert block is not None
    before = memory_watch.private_bytes(PROCESS)
    mapped, start, size = reader.view(block.reference)
    with memoryview(mapped) as octets:
        assert bytes(octets[start : start + size : mmap.PAGESIZE]) == b"x" * (size // mmap.PAGESIZE)
        ballast = bytearray(20 * MIB)
        ballast[::4096] = b"x" * len(ballast[::4096])
        found = memory_watch.private_bytes(PROCESS) - before
    reader.close()
    os.close(writer)
    return found


def test_a_process_has_memory_of_its_own() -> None:
    assert 25 * MIB < in_a_new_process(ballast_of_30_mib) < 40 * MIB


def test_requests_that_a_process_looks_at_are_not_its_own() -> None:
    """Nobody else has mapped these pages, so that the kernel takes them for this process's own."""
    assert 15 * MIB < in_a_new_process(ballast_of_20_mib_beside_a_request_of_40) < 30 * MIB


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service's delegated group, as files; what the kernel does by itself, rmdir of a full folder, is done here."""
    base = tmp_path / "fs" / "system.slice" / "modelpool.service"
    base.mkdir(parents=True)
    (base / "cgroup.controllers").write_text("cpu memory pids\n")
    (base / "cgroup.subtree_control").write_text("\n")
    (base / "cgroup.procs").write_text("")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/modelpool.service\n")

    def rmdir(path: Path) -> None:
        for entry in path.iterdir():
            entry.unlink()
        os.rmdir(path)

    monkeypatch.setattr(cgroup.Path, "rmdir", rmdir)
    return tmp_path


def find(hierarchy: Path) -> MemoryGroups | None:
    return MemoryGroups.find("p1", hierarchy / "fs", hierarchy)


def test_a_delegated_group_is_divided(hierarchy: Path) -> None:
    groups = find(hierarchy)
    assert groups is not None
    base = hierarchy / "fs/system.slice/modelpool.service"
    assert (base / "cgroup.subtree_control").read_text() == "+memory"
    assert (base / "modelpool-supervisor" / "cgroup.procs").read_text() == str(os.getpid())
    group = groups.make("7", 100 * MIB)
    group.add(4711)
    path = base / "modelpool-worker-p1-7"
    assert (path / "memory.max").read_text() == str(100 * MIB)
    assert (path / "memory.oom.group").read_text() == "1"
    assert (path / "cgroup.procs").read_text() == "4711"
    assert not group.killed
    (path / "memory.events").write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n")
    assert not group.killed
    assert group.killed_for_others
    (path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n")
    assert group.killed
    assert not group.killed_for_others
    group.remove()
    assert not path.exists()


def test_what_a_dead_supervisor_left_is_removed_and_another_pool_s_is_not(hierarchy: Path) -> None:
    base = hierarchy / "fs/system.slice/modelpool.service"
    for name in ("p1-3", "p2-3"):
        (base / f"modelpool-worker-{name}").mkdir()
    assert find(hierarchy) is not None
    assert [path.name for path in base.glob("modelpool-worker-*")] == ["modelpool-worker-p2-3"]


@pytest.mark.parametrize("how", ["no memory controller", "other processes", "cgroup v1", "no cgroup"])
def test_where_there_is_nothing_to_divide_the_watch_must_do(hierarchy: Path, how: str) -> None:
    base = hierarchy / "fs/system.slice/modelpool.service"
    match how:
        case "no memory controller":
            (base / "cgroup.controllers").write_text("cpu\n")
        case "other processes":
            (base / "cgroup.procs").write_text("1\n2\n")
        case "cgroup v1":
            (hierarchy / "self/cgroup").write_text("4:memory:/x\n")
        case _:
            (hierarchy / "self/cgroup").unlink()
    assert find(hierarchy) is None
    assert list(base.glob("modelpool*")) == []


def test_the_kernel_s_log_names_its_victims(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_bytes(b"6,1,1,-;before: Killed process 1 (mp:1/m)\n")
    watch = OomWatch(str(log), [])
    with log.open("ab") as file:
        file.write(b"6,2,1,-;Memory cgroup out of memory: Killed process 77 (mp:1/m) total-vm:1kB, anon-rss:1kB\n")
    assert watch.look(1, "mp:1/m") is OomVerdict.NO
    assert watch.look(77, "mp:1/other") is OomVerdict.NO, "another's pid, in another namespace"
    assert watch.look(77, "mp:1/m") is OomVerdict.CERTAIN
    assert watch.look(77, "mp:1/m") is OomVerdict.NO, "once"
    watch.close()


def test_each_kill_that_was_counted_explains_one_death_soon_after() -> None:
    count = 5
    watch = OomWatch("/nonexistent", [lambda: None, lambda: count])
    assert watch.look(1, "a") is OomVerdict.NO
    count = 7
    watch.tick()
    assert [watch.look(pid, "a") for pid in (1, 2, 3)] == [OomVerdict.PROBABLE, OomVerdict.PROBABLE, OomVerdict.NO]
    count = 8
    watch.tick()
    watch.tick()
    watch.tick()
    assert watch.look(4, "a") is OomVerdict.NO, "that was long ago"


def test_the_nearest_group_that_counts_is_asked(tmp_path: Path) -> None:
    """In a container the group may go by the host's name for it, and lie where the mount begins."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("4:hugetlb,memory:/docker/x\n0::/a/b\n")

    def counted(version: Version, file: str) -> int | None:
        return oom.nearest_count(version, file, tmp_path, tmp_path)

    assert counted(Version.V1, "memory.oom_control") is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert counted(Version.V1, "memory.oom_control") == 3
    (tmp_path / "a/b").mkdir(parents=True)
    for folder, kills in (("a", 5), ("a/b", 2)):
        (tmp_path / folder / "memory.events").write_text(f"oom 0\noom_kill {kills}\n")
    assert counted(Version.V2, "memory.events") == 2
    (tmp_path / "a/b/memory.events").unlink()
    assert counted(Version.V2, "memory.events") == 5


def test_a_group_whose_processes_the_kernel_ends_together_is_found(tmp_path: Path) -> None:
    assert oom.ended_together(tmp_path, tmp_path) is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "a/b").mkdir(parents=True)
    assert oom.ended_together(tmp_path, tmp_path) is None
    (tmp_path / "a/b/memory.oom.group").write_text("0\n")
    assert oom.ended_together(tmp_path, tmp_path) is None
    (tmp_path / "a/memory.oom.group").write_text("1\n")
    assert oom.ended_together(tmp_path, tmp_path) == tmp_path / "a"
