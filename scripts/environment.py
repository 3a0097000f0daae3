"""Makes a virtual environment of the checkout's own and runs a script in it: `environment.py run|test SCRIPT ARGS`.

Standard library only: it runs before anything is installed. An environment is kept until `pyproject.toml` or the
Python changes; one that was left half made is made anew. Two scripts that want the same one wait for each other.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"run": "", "test": "[dev]"}
_STAMP = "complete"


def ensure(name: str) -> Path:
    """The Python of the environment `.env-NAME`, which is made first when it is missing, outdated or unfinished."""
    directory = ROOT / f".env-{name}"
    python = directory / "bin" / "python"
    directory.mkdir(exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, directory)
        stamp = directory / _STAMP
        wanted = _wanted(name)
        if not (python.exists() and stamp.exists() and stamp.read_text("utf-8") == wanted):
            stamp.unlink(missing_ok=True)
            _make(directory, python, EXTRAS[name])
            stamp.write_text(wanted, encoding="utf-8")
    finally:
        os.close(lock)
    return python


def _wanted(name: str) -> str:
    """What an environment is good for: the project's requirements, the place it was made in, and the Python."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return f"{digest} {ROOT} {name}{EXTRAS[name]} {sys.version}\n"


def _lock(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Waiting for another script that is making {directory.name}/ ...", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _make(directory: Path, python: Path, extras: str) -> None:
    print(f"Making the environment {directory.name}/ with Python {sys.version.split()[0]}.", flush=True)
    print("The first time takes minutes: TensorFlow alone is a download of 500 MB or more.", flush=True)
    started = time.monotonic()
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    venv.EnvBuilder(with_pip=True, symlinks=True).create(directory)
    log = directory / "install.log"
    command = [str(python), "-m", "pip", "install", "--no-input", "--progress-bar", "off", "-e", f"{ROOT}{extras}"]
    print(f"  installing the project and what it needs (pip's words go to {log.relative_to(ROOT)})", flush=True)
    with log.open("w", encoding="utf-8") as out:
        installing = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            _wait_telling(installing, log)
        finally:
            if installing.poll() is None:
                installing.terminate()
                installing.wait()
    if installing.returncode != 0:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
        print(f"{tail}\npip could not install the project (exit code {installing.returncode}); see {log}")
        sys.exit(3)
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def _wait_telling(installing: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for pip; say every few seconds how long it has been and what it is at."""
    started = time.monotonic()
    last = ""
    while True:
        try:
            installing.wait(timeout=5)
        except subprocess.TimeoutExpired:
            now = _last_step(log.read_text("utf-8", "replace"))
            if sys.stdout.isatty() or now != last:
                print(f"  {time.monotonic() - started:4.0f} s  {now}", flush=True)
            last = now
        else:
            return


def _last_step(words: str) -> str:
    """What pip was last at, in short."""
    for line in reversed(words.splitlines()):
        step, _, what = line.strip().partition(" ")
        if step in ("Collecting", "Downloading", "Processing"):
            return f"{step} {what.split(' ')[0].rpartition('/')[2]}"
        if step == "Installing":
            return "Installing the packages" if what.startswith("collected") else "Preparing to build"
    return "Starting pip"


def main() -> NoReturn:
    name, script, *args = sys.argv[1:]
    try:
        python = ensure(name)
    except KeyboardInterrupt:
        sys.exit(130)
    os.execv(python, [str(python), script, *args])


if __name__ == "__main__":
    main()
