"""CPU time and waiting time of each thread of some processes, in nanoseconds, as the kernel's scheduler counts them."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """`waited_ns`: it could have run, and had no CPU."""

    name: str
    ran_ns: int
    waited_ns: int


def read(pids: Mapping[int, str]) -> dict[tuple[str, int], ThreadTime]:
    """By the role of the process and the thread's id."""
    found = {}
    for pid, role in pids.items():
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError, ValueError):
                ran, waited, _ = map(int, (task / "schedstat").read_text("ascii").split())
                name = (task / "comm").read_text("utf-8").strip()
                main = " (main)" if task.name == str(pid) else ""
                found[role, int(task.name)] = ThreadTime(name + main, ran, waited)
    return found


def per_request(
    before: Mapping[tuple[str, int], ThreadTime], after: Mapping[tuple[str, int], ThreadTime], requests: float
) -> list[dict[str, str | float]]:
    """Microseconds per request by role and name of threads, the busiest first; those below 0.1 us are left out."""
    totals: dict[tuple[str, str], list[float]] = {}
    for key, now in after.items():
        then = before.get(key, ThreadTime(now.name, 0, 0))
        total = totals.setdefault((key[0], now.name), [0.0, 0.0])
        total[0] += (now.ran_ns - then.ran_ns) / 1000 / requests
        total[1] += (now.waited_ns - then.waited_ns) / 1000 / requests
    ordered = sorted(totals.items(), key=lambda item: -item[1][0])
    return [
        {"process": role, "thread": name, "cpu_us": ran, "waited_us": waited}
        for (role, name), (ran, waited) in ordered
        if ran >= 0.1
    ]
