"""Which CPUs a worker is told to use: those named that there are, or its replica's part of them; and how much memory a
frontend may have for answers that nobody reads.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from modelpool.supervisor import command_line, config, host_memory, specs
from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.devices import CPU
from modelpool.supervisor.model_policy import ModelPolicy
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.ids import Incarnation, ServableId, SlotId
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.worker_spec import NOT_DEADLY

NOWHERE = Path("/nowhere")
SPAWN = Spawn(Incarnation(1), SlotId(ServableId("m", 1), "cpu"), "/models/m/1", CPU, urgent=False)


@pytest.mark.parametrize(
    ("named", "divided", "there", "expected"),
    [
        ((), False, {0, 1}, ()),
        ((), True, {0, 1, 4, 5}, (4, 5)),
        (("0-3",), False, {0, 1, 2, 3}, (0, 1, 2, 3)),
        (("0-3",), False, {2, 3, 4}, (2, 3)),
        (("0-7",), True, {0, 1, 2, 3}, (2, 3)),
        (("6", "7"), False, {0, 1}, (6, 7)),
    ],
    ids=["all", "a part of all", "those named", "those that there are", "a part of those", "none of them is there"],
)
def test_the_cpus_of_a_worker(
    named: tuple[str, ...],
    divided: bool,
    there: set[int],
    expected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = config.from_flags(command_line.parse(["--model_base_path=/models/m"]), NOWHERE, NOWHERE, 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: there)
    spec = specs.worker_spec(
        replace(SPAWN, part=1, parts=2),
        settings,
        ModelPolicy(cpus=named, divide_cpus=divided),
        request_log=None,
        load_priority=LoadPriority.NORMAL,
        deadly_size_bytes=NOT_DEADLY,
    )
    assert spec.cpus == expected


def most_heap_bytes(engine: Engine, frontends: int) -> int:
    flags = command_line.parse(["--model_base_path=/models/m", f"--frontends={frontends}"])
    settings = config.from_flags(flags, NOWHERE, NOWHERE, 1)
    return specs.frontend_spec(Incarnation(1), 0, settings, engine).most_heap_bytes


@pytest.mark.parametrize(
    ("engine", "frontends", "expected_gib"),
    [(Engine.ENVOY, 1, 32), (Engine.AUTO, 1, 32), (Engine.ENVOY, 4, 8), (Engine.GRPCIO, 1, 0)],
)
def test_all_frontends_together_may_have_half_of_the_memory(
    engine: Engine, frontends: int, expected_gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "total_bytes", lambda: 64 << 30)
    assert most_heap_bytes(engine, frontends) == expected_gib << 30


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_where_nobody_says_how_much_memory_there_is_frontends_have_no_bound(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise error("no MemTotal")

    monkeypatch.setattr(host_memory, "total_bytes", fail)
    assert most_heap_bytes(Engine.ENVOY, 1) == 0
