"""A version that crash-loops after its promotion gives way to the last good one, where that is wanted."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, put_version, refusal

# max_restarts of the pool file are replaced, the one after is too many.
DEATHS = 5
WITHIN_S = 60.0


def version(pool: Pool, model: str, number: int) -> Any:
    return next(each for each in pool.model(model)["versions"] if each["version"] == number)


def kill_until_failed(pool: Pool, models: Sequence[str], number: int) -> dict[str, int]:
    """Kill each worker of that version of the models once it has answered, until it is given up; how many that were."""
    killed: dict[str, set[int]] = {model: set() for model in models}

    def ended(model: str) -> bool:
        found = version(pool, model, number)
        for worker in found["workers"]:
            if worker["state"] == "ready" and worker["pid"] not in killed[model]:
                pool.number_by_grpc(model, version=number)
                os.kill(worker["pid"], signal.SIGKILL)
                killed[model].add(worker["pid"])
        return bool(found["state"] == "END")

    eventually(lambda: all([ended(model) for model in models]), WITHIN_S, f"{number} is given up")
    return {model: len(pids) for model, pids in killed.items()}


def test_a_crash_loop_is_rolled_back(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    pool_file = tmp_path / "pool.toml"
    pool_file.write_text(
        f"[defaults]\nsettle_s = 0\nmax_restarts = {DEATHS - 1}\n[models.stubborn]\nrollback = false\n"
    )
    names = ("careful", "stubborn")
    for name in names:
        (tmp_path / name).mkdir()
        put_version(models / "numbered" / "1", tmp_path / name, "1")
    pool = start_pool(model_config({name: tmp_path / name for name in names}), f"--pool_config_file={pool_file}")
    for name in names:
        assert pool.number_by_grpc(name) == 1
        put_version(models / "numbered" / "2", tmp_path / name, "2")
    promoted = {1: "END", 2: "AVAILABLE"}
    eventually(lambda: [pool.versions(name) for name in names] == [promoted] * 2, 20.0)

    assert kill_until_failed(pool, names, 2) == dict.fromkeys(names, DEATHS)
    eventually(lambda: pool.versions("careful") == {1: "AVAILABLE", 2: "END"}, 20.0)
    assert (pool.number_by_grpc("careful"), pool.number_by_rest("careful")) == (1, 1)
    cause = "killed by SIGKILL"
    text = f"The worker of careful/2 died while serving: {cause}. Rolled back to version 1"
    told = pool.model("careful")
    assert told["rolled_back_to"] == 1
    assert version(pool, "careful", 2)["error"] == {"code": "UNAVAILABLE", "message": text}
    (state,) = pool.model_status("careful", 2).model_version_status
    assert (state.state, state.status.error_code, state.status.error_message) == (50, 14, text)
    assert "rolled back servable=careful/2 to_version=1" in pool.log

    text = f"The worker of stubborn/2 died while serving: {cause}"
    (worker,) = version(pool, "stubborn", 2)["workers"]
    assert (worker["state"], worker["error"]["message"]) == ("failed", text)
    assert 0 < worker["retry_in_s"] <= 60.0, "it is tried again later"
    assert pool.model("stubborn")["rolled_back_to"] is None
    assert pool.versions("stubborn") == promoted | {2: "END"}
    refused = refusal(lambda: pool.number_by_grpc("stubborn"))
    assert refused == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(stubborn)")

    put_version(models / "numbered" / "3", tmp_path / "careful", "3")
    eventually(lambda: pool.versions("careful") == {1: "END", 2: "END", 3: "AVAILABLE"}, 20.0)
    assert pool.model("careful")["rolled_back_to"] is None
    assert pool.number_by_grpc("careful") == 3
