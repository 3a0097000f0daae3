"""Where Python spends its time: stacks of a process by py-spy, added up by function.

The adding up is pure. py-spy comes from the package index, when it is missing, into the environment that runs this;
where it cannot be had, or may not look into a process, the profile goes without it and says why.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_RATE = 250
_TOP = 12
_FOLDED = re.compile(r"(.+) (\d+)")
_FILE = re.compile(r"\((?:.*/)?([^/]+/[^/]+)\)$")


def py_spy() -> str | None:
    """The program; installed now when it is missing and can be."""
    path = Path(sys.executable).parent / "py-spy"
    if not path.exists():
        print("  installing py-spy ...", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "py-spy>=0.4"]
        subprocess.run(command, check=False, timeout=180, capture_output=True)
    return str(path) if path.exists() else None


class Recording:
    """Stacks of one process for a while, beside everything else; `finish` waits for their end."""

    def __init__(self, program: str, pid: int, duration_s: float) -> None:
        self._file = Path(tempfile.mkstemp(prefix="mp-stacks-")[1])
        command = [program, "record", f"--pid={pid}", f"--duration={max(1, round(duration_s))}", f"--rate={_RATE}"]
        command += ["--format=raw", f"--output={self._file}", "--nonblocking"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
        )

    def finish(self) -> dict[str, Any]:
        """`functions`, the busiest first, or `error`."""
        try:
            words, _ = self._process.communicate(timeout=60)
            folded = self._file.read_text("utf-8", "replace").splitlines()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            words, folded = "it did not end", []
        finally:
            self._file.unlink(missing_ok=True)
        if not folded:
            return {"error": words.strip().splitlines()[-1] if words.strip() else "no stacks"}
        return {"functions": by_function(folded)}


def by_function(folded: Iterable[str]) -> list[dict[str, Any]]:
    """Shares of the samples: `own`, in the function itself with the C code it calls; `total`, also in what it calls."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in folded:
        found = _FOLDED.fullmatch(line.strip())
        if found is None:
            continue
        frames, count = [_short(frame) for frame in found[1].split(";")], int(found[2])
        samples += count
        own[frames[-1]] += count
        for frame in set(frames):
            total[frame] += count
    return [
        {"function": name, "own": count / samples, "total": total[name] / samples}
        for name, count in own.most_common(_TOP)
    ]


def _short(frame: str) -> str:
    """`name (folder/file.py)`, without the line and the rest of the path."""
    without_line = re.sub(r":\d+\)$", ")", frame.strip())
    return _FILE.sub(r"(\1)", without_line)
