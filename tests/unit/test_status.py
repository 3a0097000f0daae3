"""The status document keeps its promised shape, and the table says what is wrong."""

import json
import re
from typing import Any

import pynvml
import pytest

from modelpool.supervisor import status, status_command
from modelpool.supervisor.command_options import UsageError
from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.devices import Inventory
from modelpool.supervisor.exits import Exit
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.places import Places
from modelpool.supervisor.wire.frontend_messages import FrontendStats
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.status import Code, Status
from modelpool.supervisor.wire.worker_messages import WorkerHeartbeat, WorkerLoadFailed, WorkerProgress, WorkerReady
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

OWN = {"serving": True, "grpc_port": 8500, "rest_port": 8501, "grpc_socket_path": ""}
# What the first issue promised to whoever reads the document; keys may be added, never dropped.
WORKER_KEYS = {"pid", "device", "incarnation", "state", "restarts", "last_exit", "rss_bytes", "in_flight", "served"}


def manager_with_one_of_each() -> Manager:
    """`good` serves and was restarted once; `bad` cannot be loaded; `lost` has no base path."""
    options = ManagerOptions(10, lambda incarnation: f"ipc:///w{incarnation}", lambda: 0.0)
    manager = Manager(options)
    manager.configure({name: ModelSettings() for name in ("good", "bad", "lost")})
    manager.aspire("good", {3: "/models/good/3"})
    manager.aspire("bad", {1: "/models/bad/1"})
    manager.source_failed("lost", Status(Code.NOT_FOUND, "Could not find base path /models/lost for servable lost"))
    manager.models["bad"].source_notes = ("Version 2 of servable bad is not complete yet",)
    started = {c.slot.servable.name: c.incarnation for c in manager.advance(0.0) if isinstance(c, Spawn)}
    for incarnation in started.values():
        manager.worker_message(incarnation, WorkerProgress(WorkerPhase.LOADING), 0.0)
    manager.exited(started["good"], Exit(None, 9, "killed by SIGKILL"), 0.0)
    manager.worker_message(started["bad"], WorkerLoadFailed(Code.DATA_LOSS, "Can't parse it", True), 0.0)
    manager.exited(started["bad"], Exit(3, None, "exited with code 3"), 0.0)
    (again,) = [c.incarnation for c in manager.advance(10.0) + manager.advance(10.0) if isinstance(c, Spawn)]
    manager.worker_message(again, WorkerProgress(WorkerPhase.LOADING), 10.0)
    manager.worker_message(again, WorkerReady(0.5, 0.1), 11.0)
    manager.worker_message(again, WorkerHeartbeat(served=42, in_flight=1, busy_s=0.1), 12.0)
    return manager


@pytest.fixture
def document() -> dict[str, Any]:
    manager = manager_with_one_of_each()
    frontends = {Incarnation(1): (1, FrontendStats({3: 2}, 40)), Incarnation(2): (1, None)}
    parsed: dict[str, Any] = json.loads(status.to_json(status.pool_status(manager, frontends, OWN, 13.0)))
    return parsed


def test_the_promised_shape(document: dict[str, Any]) -> None:
    assert {"models", "frontends", "supervisor"} <= set(document)
    assert all("pid" in frontend for frontend in document["frontends"])
    assert document["supervisor"]["pid"] > 0
    for model in document["models"]:
        assert {"name", "versions"} <= set(model)
        for version in model["versions"]:
            assert {"version", "state", "error", "workers"} <= set(version)
            assert set(version["error"]) == {"code", "message"}
            assert all(set(worker) >= WORKER_KEYS for worker in version["workers"])


def test_devices_are_told_with_what_is_on_them() -> None:
    gpus = FakeGpu("GPU-a", 8 * GIB, driver_bytes=GIB, utilization=5), FakeGpu("GPU-b", 4 * GIB)
    nvml = RealNvml(FakeLibrary(*gpus))
    places = Places(Inventory.of(nvml.look()))
    manager = Manager(ManagerOptions(10, lambda incarnation: f"ipc:///w{incarnation}", lambda: 0.0, places=places))
    policy = DevicePolicy(("gpu:0",), replicas=4, memory_bytes=2 * GIB)
    manager.configure({"m": ModelSettings(devices=policy)})
    manager.aspire("m", {1: "/m/1"})
    manager.advance(0.0)
    gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
    places.look(nvml.look(), 1.0)
    document = json.loads(status.to_json(status.pool_status(manager, {}, OWN, 2.0)))
    first, second, cpu = document["devices"]
    assert first == {
        "id": "gpu:0",
        "uuid": "GPU-a",
        "product": "Fake H1",
        "lost": "",
        "workers": 3,
        "memory_bytes": 8 * GIB,
        "used_bytes": GIB,
        "budget_bytes": 7 * GIB,
        "claimed_bytes": 6 * GIB,
        "utilization_percent": 5,
        "ecc_errors": 0,
    }
    assert (second["uuid"], second["lost"], second["used_bytes"]) == ("GPU-b", "GPU is lost", None)
    assert (cpu["id"], cpu["uuid"], cpu["memory_bytes"], cpu["workers"]) == ("cpu", "", None, 0)
    (version,) = document["models"][0]["versions"]
    refusal = "m/1: 1 of 4 replicas: needs 2.0 GiB, free on gpu:0 1.0 GiB, would fit there after unloading m/1@gpu:0#0"
    assert (version["wanted_workers"], version["placement_error"]) == (4, refusal)
    assert [worker["gpu_claim_bytes"] for worker in version["workers"]] == [2 * GIB] * 3
    table = status_command.render(document)
    assert refusal in table
    assert "gpu:1: lost: GPU is lost" in table


def test_what_happened_is_told(document: dict[str, Any]) -> None:
    good, bad, lost = document["models"]
    (worker,) = good["versions"][0]["workers"]
    assert good["versions"][0]["state"] == "AVAILABLE"
    assert worker["restarts"] == 1
    assert worker["last_exit"] == {"signal": 9, "code": None, "cause": "killed by SIGKILL", "kind": "signal"}
    assert (worker["served"], worker["in_flight"]) == (42, 2)
    assert (worker["load_s"], worker["warmup_s"]) == (0.5, 0.1)
    assert bad["versions"][0]["state"] == "END"
    assert bad["versions"][0]["error"] == {"code": "DATA_LOSS", "message": "Can't parse it"}
    assert lost["versions"] == []
    assert lost["source_error"]["code"] == "NOT_FOUND"
    assert [model["source_notes"] for model in (good, bad, lost)] == [
        [],
        ["Version 2 of servable bad is not complete yet"],
        [],
    ]


def test_the_table_shows_states_and_what_is_wrong(document: dict[str, Any]) -> None:
    table = status_command.render(document)
    assert "AVAILABLE" in table
    assert "bad 1: DATA_LOSS: Can't parse it" in table
    assert "bad: Version 2 of servable bad is not complete yet" in table
    assert "lost: Could not find base path" in table
    assert "good 3: the last worker killed by SIGKILL" in table
    assert "serving on gRPC 8500, REST 8501" in table


def test_the_table_shows_refused_files_and_rollbacks(document: dict[str, Any]) -> None:
    refusal = {"code": "INVALID_ARGUMENT", "message": "models.config:3:5: expected [a name]"}
    document["supervisor"]["configuration_errors"] = {"model_config_file": refusal}
    document["models"][0]["rolled_back_to"] = 3
    table = status_command.render(document)
    told = (
        "--model_config_file: refused, the last good one stays: INVALID_ARGUMENT: models.config:3:5: expected [a name]"
    )
    assert told in table
    assert [line for line in table.splitlines() if "rolled back" in line] == ["good: rolled back to version 3"]


def test_an_end_in_good_order_is_no_news(document: dict[str, Any]) -> None:
    (worker,) = document["models"][0]["versions"][0]["workers"]
    worker["last_exit"] = {"signal": None, "code": 0, "cause": "exited with code 0", "kind": "stopped"}
    assert "good 3: the last worker" not in status_command.render(document)


def test_shared_memory_is_shown_where_the_pool_tells_of_it(document: dict[str, Any]) -> None:
    assert "shared memory" not in status_command.render(document)
    document["supervisor"]["shared_memory"] = {
        "used_bytes": 3 << 20,
        "reserved_bytes": 512 << 20,
        "limit_bytes": 1 << 33,
    }
    assert "; shared memory 3 of at most 512 MiB\n" in status_command.render(document)


def test_into_a_file_lines_are_as_long_as_they_are(document: dict[str, Any]) -> None:
    document["models"][0]["name"] = "n" * 300
    row = next(line for line in status_command.render(document).splitlines() if line.startswith("nnn"))
    assert row.split()[:4] == ["n" * 300, "3", "AVAILABLE", "ready"]
    assert row == row.rstrip()


@pytest.mark.parametrize("width", [200, 80, 40])
def test_a_terminal_is_filled_and_no_number_is_cut(document: dict[str, Any], width: int) -> None:
    good = document["models"][0]
    good["name"] = "a_model_with_a_long_name"
    good["versions"][0]["workers"][0] |= {"pid": 4194303, "rss_bytes": 1234 << 20, "served": 123456}
    table = re.sub("\x1b\\[[0-9;]*m", "", status_command.render(document, width))
    heading = next(line for line in table.splitlines() if line.startswith("MODEL"))
    row = next(line for line in table.splitlines() if line.startswith("a_model"))
    assert ("IN FLIGHT" in heading) == (width == 200)
    device = ["cpu"] if width == 200 else []
    assert row.split()[1:] == ["3", "AVAILABLE", "ready", "4194303", *device, "1234", "MiB", "2", "123456", "1"]
    assert len(row.rstrip()) <= max(width, 80), "it is not wider than it needs to be"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--jsno"], "--jsno: unknown option"),
        (["what"], "what: unknown option"),
        (["--port=x"], "--port: expected a whole number from 0 to 65535, got 'x'"),
    ],
)
def test_a_wrong_command_line_is_named(argv: list[str], text: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=text):
        status_command.run(argv, tmp_path)


def test_no_pool_is_said_and_is_a_failure(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_command.run([], tmp_path) == 1
    assert "no pool runs below" in capsys.readouterr().err
