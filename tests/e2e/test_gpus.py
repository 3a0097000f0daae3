"""A whole pool on scripted GPUs, with real workers: where they go, and what becomes of them when a GPU is lost."""

import json
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.e2e import fake_gpus
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values
from tests.fake_nvml import GIB

WITHIN_S = 30.0
MODELS = ("half_plus_two", "demo", "dense")
POOL_FILE = """
[models.half_plus_two]
devices = "all"
gpu_memory_mb = 1536
[models.demo]
devices = ["gpu:0", "GPU-bb"]
gpu_memory_mb = 2048
[models.dense]
devices = "gpu:0"
gpu_memory_mb = 4096
"""


class Gpus:
    """The file that says how the GPUs are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._states = [{"uuid": uuid, "error": 0, "xid": 0} for uuid in ("GPU-aa", "GPU-bb")]
        self.set(0)

    def set(self, number: int, *, error: int = 0, xid: int = 0) -> None:
        self._states[number] |= {"error": error, "xid": xid}
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self._states), "utf-8")
        unfinished.replace(self.path)


def on(pool: Pool, name: str) -> dict[str, str]:
    """The state of the model's newest version's workers, by device."""
    workers = pool.model(name)["versions"][0]["workers"]
    return {worker["device"]: worker["state"] for worker in workers}


def answer(pool: Pool) -> Any:
    return values(pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])})).outputs["y"])


def test_gpus(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(tmp_path / "gpus.json")
    monkeypatch.setenv(fake_gpus.STATE, str(gpus.path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pool_file = tmp_path / "pool.toml"
    pool_file.write_text(f'{POOL_FILE}\n[source]\ncache_dir = "{tmp_path / "cache"}"\n', "utf-8")
    flags = (f"--pool_config_file={pool_file}",)
    config = model_config({name: models / name for name in MODELS})
    with running_pool(config, *flags, program=(sys.executable, "-P", "-m", "tests.e2e.fake_gpus")) as pool:
        pool.wait_available("half_plus_two", "demo")
        both = {"gpu:0": "ready", "gpu:1": "ready"}
        eventually(lambda: on(pool, "half_plus_two") == both, WITHIN_S, "its second replica, for which no start waits")
        assert on(pool, "demo") == {"gpu:0": "ready"}
        first, second, _ = pool.status()["devices"]
        assert (first["claimed_bytes"], second["claimed_bytes"]) == (int(3.5 * GIB), int(1.5 * GIB))
        assert answer(pool) == [2.5]
        (status,) = pool.model_status("dense").model_version_status
        assert status.State.Name(status.state) == "END"
        assert status.status.error_message.startswith("dense/2: needs 4.0 GiB, free on gpu:0 ")
        assert status.status.error_message.endswith("which would not be enough if it were empty (3.7 GiB)")

        gpus.set(0, xid=79)
        eventually(lambda: on(pool, "demo") == {"gpu:1": "ready"}, WITHIN_S, "demo on the other GPU")
        eventually(lambda: on(pool, "half_plus_two") == {"gpu:1": "ready"}, WITHIN_S, "none on the lost GPU")
        assert [device["lost"] for device in pool.status()["devices"]] == ["Xid 79", "", ""]
        assert answer(pool) == [2.5]

        gpus.set(1, error=pynvml.NVML_ERROR_GPU_IS_LOST)
        eventually(lambda: pool.versions("demo") == {1: "END"}, WITHIN_S, "no GPU is left")
        (status,) = pool.model_status("demo").model_version_status
        assert status.status.error_message == "demo/1: gpu:0 is lost (Xid 79); gpu:1 is lost (GPU is lost)"
        gpus.set(1)
        pool.wait_available("demo", "half_plus_two")
        assert answer(pool) == [2.5]
