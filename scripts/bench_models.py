"""The models of the sub-benches: half_plus_two and a big one, which is built once, into `build/bench/`.

Its further versions are hard links of the first, so that another one costs no disk and no time.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench_load
from bench_server import MODELS, ROOT, SCRIPTS

BUILD = ROOT / "build" / "bench"


def big_version(size_mb: int) -> Path:
    """The version directory of a model with so many megabytes (10^6) of weights, built when it is missing."""
    base = BUILD / f"big_{size_mb}"
    subprocess.run([sys.executable, str(SCRIPTS / "bench_big_model.py"), str(base), str(size_mb)], check=True)
    return base / "1"


def small_version() -> Path:
    """The version directory of half_plus_two."""
    (version,) = (MODELS / bench_load.MODEL).iterdir()
    return version


def link_version(source: Path, base: Path, version: int) -> None:
    """Let a version appear as a whole: hard links under a name that is none, then a rename."""
    unfinished = base / f".unfinished-{version}"
    shutil.copytree(source, unfinished, copy_function=os.link)
    unfinished.rename(base / str(version))
