"""Scenes in which something runs out: descriptors, disk, patience of clients that connect and do nothing."""

import contextlib
import json
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from chaos_load import Calls, Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Skipped, Stage

_MIB = 1 << 20
_SPARE_FILES = 500


@contextlib.contextmanager
def _connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many TCP connections to a port, or as many as are accepted."""
    made: list[socket.socket] = []
    try:
        with contextlib.suppress(OSError):
            for _ in range(count):
                made.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        yield made
    finally:
        for each in made:
            each.close()


def _memory_mib(pool: ChaosPool) -> float:
    """Of all frontends, resident."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pool.frontends()) / _MIB


def _unharmed(calls: Calls) -> Check:
    seen = f"{len(calls)} calls, {calls.codes or 'no error'}, {calls.wrong} wrong {calls.texts[:2] or ''}"
    return Check("the other clients are unharmed: 0 errors", not calls.refused and not calls.wrong, seen)


def idle_connections(stage: Stage) -> list[Check]:
    """10,000 connections that say nothing, half of them gRPC's."""
    wanted = 500 if stage.short else 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + _SPARE_FILES:
        raise Skipped(f"at most {hard} descriptors are allowed here (ulimit -Hn), {wanted + _SPARE_FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + _SPARE_FILES, hard))
    with ChaosPool(stage.scratch, {"a": stage.models / "quick"}) as pool, Load(pool.target, {"a": 4}) as load:
        time.sleep(stage.seconds(5.0, 1.0))
        before_s, before_mib = time.monotonic(), _memory_mib(pool)
        with _connections(pool.port, wanted // 2) as grpc, _connections(pool.rest_port, wanted // 2) as rest:
            made = len(grpc) + len(rest)
            full_s = time.monotonic()
            time.sleep(stage.seconds(10.0, 1.0))
            with Load(pool.target, {"a": 2}) as newcomers:
                time.sleep(stage.seconds(2.0, 0.5))
            memory_mib = _memory_mib(pool) - before_mib
    calm, crowded = load.calls["a"].between(0, before_s), load.calls["a"].between(full_s)
    return [
        Check(f"{wanted} connections are accepted", made == wanted, f"{made} in {full_s - before_s:.1f} s"),
        _unharmed(load.calls["a"]),
        Check("new clients are served", not newcomers.calls["a"].refused, f"{len(newcomers.calls['a'])} calls"),
        Check("p99 before and with them (figure)", None, f"{calm.p99_ms:.1f} ms, {crowded.p99_ms:.1f} ms"),
        Check("memory of the frontend for them (figure)", None, f"{memory_mib:.0f} MiB"),
    ]


def _limit_files(count: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    return limit


def descriptors(stage: Stage) -> list[Check]:
    """More connections than a frontend has descriptors for; and a worker dies meanwhile."""
    files = 256
    with (
        ChaosPool(
            stage.scratch, {"a": stage.models / "quick", "b": stage.models / "quick"}, before_exec=_limit_files(files)
        ) as pool,
        Load(pool.target, {"a": 2, "b": 2}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        frontends = pool.frontends()
        with _connections(pool.port, files), _connections(pool.rest_port, files):
            full_s = time.monotonic()
            time.sleep(stage.seconds(5.0, 1.0))
            starved_s = time.monotonic()
            incarnation = pool.kill_worker("a")
            pool.wait_replaced("a", incarnation)
            time.sleep(stage.seconds(3.0, 1.0))
        freed_s = time.monotonic()
        pool.until(lambda: _answers(pool, "a") and _answers(pool, "b"), 30.0, "both models answer again")
        healed_s = time.monotonic()
        same = pool.frontends() == frontends
    starved = load.calls["b"].between(full_s, starved_s)
    with_death = load.calls["b"].between(starved_s, freed_s)
    return [
        Check(
            "clients that are connected are served: 0 errors",
            not starved.refused,
            f"{len(starved)} calls, {starved.codes or 'no error'}",
        ),
        Check(
            "and also B's when a worker of A dies meanwhile",
            not with_death.refused,
            f"{len(with_death)} calls, {with_death.codes or 'no error'} {with_death.texts[:1] or ''}",
        ),
        Check("when the connections are gone both models answer", True, f"after {healed_s - freed_s:.2f} s"),
        Check("no frontend died of it", same, "" if same else "it was replaced"),
        Check("no answer is another request's", load.calls["a"].wrong + load.calls["b"].wrong == 0, "each is checked"),
    ]


def _answers(pool: ChaosPool, model: str) -> bool:
    with Load(pool.target, {model: 1}) as load:
        time.sleep(0.1)
    last = load.calls[model].all[-1]
    return last.code == "OK" and last.right


@contextlib.contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    """A file system of 1 MiB at `path`. Raises Skipped where mounting is not allowed."""
    path.mkdir(mode=0o700)
    options = "size=1m,nr_inodes=64,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skipped(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class _Filling:
    """Keeps all blocks and inodes of a file system used up, whatever is freed, within the `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[Path] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_full)

    def __enter__(self) -> None:
        self._use_up(bytes(64 * 1024))
        self._use_up(b"")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for file in self._files:
            file.unlink(missing_ok=True)

    def _use_up(self, content: bytes) -> None:
        """Make files until none can be made."""
        with contextlib.suppress(OSError):
            while True:
                self._files.append(self._path / f"filler-{len(self._files)}")
                self._files[-1].write_bytes(content)

    def _keep_full(self) -> None:
        while not self._stop.wait(0.001):
            self._use_up(b"")


def full_disk(stage: Stage) -> list[Check]:
    """The disk of the runtime directory is full when a worker dies."""
    path = stage.scratch / "small"
    models = {"a": stage.models / "quick", "b": stage.models / "quick"}
    with (
        _small_disk(path),
        ChaosPool(stage.scratch, models, runtime_dir=path / "run") as pool,
        Load(pool.target, {"a": 2, "b": 2}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        with _Filling(path):
            full_s = time.monotonic()
            incarnation = pool.kill_worker("a")
            time.sleep(stage.seconds(5.0, 1.0))
            state = pool.worker("a")
        freed_s = time.monotonic()
        pool.wait_replaced("a", incarnation, 90.0)
        back_s = time.monotonic() - freed_s
        time.sleep(0.5)
    a, b = load.calls["a"], load.calls["b"]
    return [
        _unharmed(b),
        Check(
            "A, whose worker died, waits for the next one: 0 errors",
            not a.refused and not a.wrong,
            f"{len(a)} calls, {a.codes or 'no error'}, {a.wrong} wrong {a.texts[:2] or ''}",
        ),
        Check(
            "why it has none is told, and where",
            state["error"]["code"] == "UNAVAILABLE"
            and str(path) in state["error"]["message"]
            and "No space left on device" in state["error"]["message"],
            f"{state['state']}: {state['error']['message']}",
        ),
        Check("A is back when there is room", True, f"after {back_s:.1f} s, {freed_s - full_s:.1f} s of full disk"),
    ]


def slow_readers(stage: Stage) -> list[Check]:
    """Clients that ask for big answers and do not read them."""
    readers, requests, numbers = 32, 8, 100_000
    body = json.dumps({"instances": list(range(numbers))}).encode()
    head = f"POST /v1/models/a:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        ChaosPool(stage.scratch, {"a": stage.models / "quick", "b": stage.models / "quick"}) as pool,
        Load(pool.target, {"b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        before_mib = _memory_mib(pool)
        with _connections(pool.rest_port, readers) as connections:
            for each in connections:
                each.setblocking(False)
            _send_unread(connections, (head + body) * requests, stage.seconds(15.0, 3.0))
            memory_mib = _memory_mib(pool) - before_mib
        time.sleep(stage.seconds(3.0, 0.5))
        after_mib = _memory_mib(pool) - before_mib
    allowed_mib, all_mib = (readers * each * len(body) / _MIB for each in (4, requests))
    return [
        _unharmed(load.calls["b"]),
        Check(
            "an unread answer holds back the next request of its connection, so memory is bounded",
            memory_mib <= allowed_mib,
            f"{memory_mib:.0f} MiB for {readers} readers, {allowed_mib:.0f} allowed, of {all_mib:.0f} MiB of answers",
        ),
        Check("memory when they are gone (figure)", None, f"{after_mib:+.0f} MiB"),
    ]


def _send_unread(connections: list[socket.socket], data: bytes, seconds: float) -> None:
    """Send to all of them as much as they take within the time, and read nothing."""
    sent = dict.fromkeys(connections, 0)
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for each, done in sent.items():
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if done < len(data):
                    sent[each] += each.send(data[done : done + 65536])
        time.sleep(0.001)


SCENES: dict[str, Scene] = {
    "idle connections": idle_connections,
    "no descriptors left": descriptors,
    "the disk is full": full_disk,
    "slow readers": slow_readers,
}
