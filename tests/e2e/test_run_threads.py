"""Whether a graph runs in the worker's own thread or in TensorFlow's pool: found out by running it, before it serves.

The branches of `branches` sleep, so what they gain by the pool does not depend on what else the CPUs have to do; and
each says which thread it ran in.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.e2e.custom_op_models import BRANCHES, LIBRARY
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

IN_POOL, IN_THREAD = "in TensorFlow's pool", "in the caller's thread"


def started(start_pool: StartPool, models: Path, folder: Path, *names: str, auto_warmup: bool) -> Pool:
    if not (models / LIBRARY).exists():
        pytest.skip("there is no C++ compiler for an operation that sleeps")
    settings = folder / "pool.toml"
    warmup, library = json.dumps(auto_warmup), json.dumps(str(models / LIBRARY))
    settings.write_text(f"[defaults]\nauto_warmup = {warmup}\n[models.branches]\nop_libraries = [{library}]\n")
    pool = start_pool(model_config({name: models / name for name in names}), f"--pool_config_file={settings}")
    pool.wait_available(*names)
    return pool


def choices(pool: Pool, model: str) -> list[str]:
    """What each worker of a model has chosen."""
    return re.findall(rf"\b{model}\b.*graphs run where=['\"](.*?)['\"]$", pool.log, re.MULTILINE)


def threads(pool: Pool) -> set[int]:
    """The threads that have run the branches of one request."""
    reply = pool.predict(predict_request("branches", {"x": tensor([1.0, 2.0])}))
    ran = values(reply.outputs["threads"])
    assert len(ran) == BRANCHES
    return set(ran)


def several(ran: set[int]) -> set[int] | None:
    return ran if len(ran) > 1 else None


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the pool has one thread where there is one CPU")
def test_branches_that_are_slow_run_side_by_side(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    pool = started(start_pool, models, tmp_path, "branches", "sum", auto_warmup=True)
    assert choices(pool, "branches") == [IN_POOL]
    ran = eventually(lambda: several(threads(pool)), what="two threads take part")
    assert pool.worker("branches")["pid"] not in ran, "a process's first thread has its id"
    assert choices(pool, "sum") == [IN_THREAD], "one addition is not worth another thread"


def test_without_a_warmup_there_is_nothing_to_go_by(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    pool = started(start_pool, models, tmp_path, "branches", auto_warmup=False)
    assert choices(pool, "branches") == []
    assert threads(pool) == {pool.worker("branches")["pid"]}
