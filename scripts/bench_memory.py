"""Memory and CPU time of every process of a server, found by a mark in their environment."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MARK = "MODELPOOL_BENCH"


@dataclass(frozen=True, slots=True)
class Memory:
    """One process. `pss_bytes`: pages shared by n processes count as an nth; the sum over all is what is in use.

    `pss_anon_bytes`: of that what is no file's, which processes that are none of ours cannot change. `private_bytes`:
    pages that nobody else has. `tensorflow`: it has TensorFlow's libraries in its memory.
    """

    role: str
    pid: int
    rss_bytes: int
    pss_bytes: int
    pss_anon_bytes: int
    private_bytes: int
    tensorflow: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def marked_processes(mark: str) -> list[int]:
    """The pids of all living processes that were started, or forked, with the mark."""
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                pids.append(process.pid)
    return sorted(pids)


def roles(status: Mapping[str, Any]) -> dict[int, str]:
    """What each pid is, from the document of `GET /pool/v1/status`."""
    named = {status["supervisor"]["pid"]: "supervisor", status["supervisor"]["fork_server_pid"]: "fork server"}
    named.update({frontend["pid"]: "frontend" for frontend in status["frontends"]})
    for model in status["models"]:
        for version in model["versions"]:
            for worker in version["workers"]:
                named[worker["pid"]] = f"worker {model['name']} {version['version']}"
    return named


def measure(pids: list[int], named: Mapping[int, str]) -> list[Memory]:
    """The memory of the processes; one that has no name in the status goes by its program's."""
    return [memory_of(pid, _role(pid, named)) for pid in pids]


def cpu_s(pids: list[int], named: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds up to now, by role."""
    used: dict[str, float] = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            role = _role(pid, named)
            used[role] = used.get(role, 0.0) + times.user + times.system
    return used


def _role(pid: int, named: Mapping[int, str]) -> str:
    if pid in named:
        return named[pid]
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "gone"


def memory_of(pid: int, role: str) -> Memory:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()[1:]:
        key, _, value = line.partition(":")
        fields[key] = int(value.split()[0]) * 1024
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    tensorflow = "libtensorflow" in Path(f"/proc/{pid}/maps").read_text("utf-8")
    return Memory(role, pid, fields["Rss"], fields["Pss"], fields["Pss_Anon"], private, tensorflow)
