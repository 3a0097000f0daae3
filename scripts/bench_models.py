"""The models of the benches, built when they are missing: those of the workloads, and a big one.

The big one's further versions are hard links of the first, so that another one costs no disk and no time.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import bench_inputs
from bench_server import SCRIPTS
from bench_workloads import WORKLOADS


def build(workloads: Iterable[str]) -> dict[str, Path]:
    """The base paths, by model, of what some workloads need and of half_plus_two, which every server has."""
    subprocess.run([sys.executable, str(SCRIPTS / "demo_models.py"), str(bench_inputs.DEMO_MODELS)], check=True)
    names = sorted({WORKLOADS[each].model for each in workloads} - {bench_inputs.HALF_PLUS_TWO})
    if names:
        command = [sys.executable, str(SCRIPTS / "bench_model_builder.py"), *names]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return {name: bench_inputs.base_path(name) for name in (bench_inputs.HALF_PLUS_TWO, *names)}


def version_of(base: Path) -> Path:
    """The only version below a base path."""
    (version,) = (each for each in base.iterdir() if each.name.isdigit())
    return version


def big_version(size_mb: int) -> Path:
    """The version directory of a model with so many megabytes (10^6) of weights, built when it is missing."""
    base = bench_inputs.BUILD / f"big_{size_mb}"
    subprocess.run([sys.executable, str(SCRIPTS / "bench_big_model.py"), str(base), str(size_mb)], check=True)
    return base / "1"


def small_version() -> Path:
    """The version directory of half_plus_two."""
    return version_of(bench_inputs.base_path(bench_inputs.HALF_PLUS_TWO))


def link_version(source: Path, base: Path, version: int) -> None:
    """Let a version appear as a whole: hard links under a name that is none, then a rename."""
    unfinished = base / f".unfinished-{version}"
    shutil.copytree(source, unfinished, copy_function=os.link)
    unfinished.rename(base / str(version))
