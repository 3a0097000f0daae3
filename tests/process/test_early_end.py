"""A signal that comes before the server has begun: it is not lost, not even by process 1 of a container."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.eventually import eventually
from tests.free_ports import free_ports

END_WITHIN_S = 60.0


def end_early(tmp_path: Path, how: signal.Signals, *namespace: str) -> None:
    """Start a server, send it the signal as soon as it has handlers, and expect an end in good order."""
    (port,) = free_ports(1)
    flags = (f"--model_base_path={tmp_path}", f"--port={port}", f"--runtime_dir={tmp_path / 'run'}")
    command = [*namespace, sys.executable, "-m", "modelpool.supervisor", "serve", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        pid = eventually(lambda: _with_handlers(process.pid, bool(namespace)), END_WITHIN_S, "there are handlers")
        os.kill(pid, how)
        said, _ = process.communicate(timeout=END_WITHIN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def _with_handlers(pid: int, is_parent: bool) -> int | None:
    """The pid of the server, once it handles SIGTERM, which Python by itself does not."""
    with contextlib.suppress(OSError, IndexError):
        if is_parent:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:") and int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
                return pid
    return None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_end_before_the_beginning(tmp_path: Path, how: signal.Signals) -> None:
    end_early(tmp_path, how)


def test_process_1_hears_of_it_too(tmp_path: Path) -> None:
    namespace = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no pid namespace of its own can be had here")
    end_early(tmp_path, signal.SIGTERM, *namespace)


def test_nothing_is_imported_before_the_handlers() -> None:
    code = (
        "import sys; from modelpool.supervisor import __main__\n"
        "print([name for name in ('asyncio', 'zmq', 'logging', 'modelpool.supervisor.main') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
