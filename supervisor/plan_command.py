"""The command `modelpool plan`: where everything would go, and what does not fit and why. Starts nothing.

Reads what `modelpool serve` with the same flags would read: the configuration, the versions that are there, NVML, and
the figures of earlier runs. Decides by the same `places`. Where the pool with these flags runs, it is asked what others
than its own workers hold.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import command_line, config, control_client, memory_book, pool_config, runtime_dir, session_config, source
from .command_options import UsageError
from .configuration import device_policy
from .devices import Device, Inventory, Nvml
from .model_config import ModelConfig, split_uri
from .placement import Decision, Room, amount, unknown_names
from .places import Places
from .pool_config import PoolFile
from .servable import Servable
from .source import SourceOptions
from .wire.ids import ServableId
from .wire.status import PoolError

_USAGE = """\
usage: modelpool plan CONFIG [--pool_config_file=FILE] [--json] [flags of serve]
       modelpool plan --model_base_path=FOLDER [...]
CONFIG is what serve takes as --model_config_file. The exit code is 1 when something does not fit.
"""
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Plan:
    """`rooms` after all decisions; `notes`: what an operator should know beside that."""

    rooms: tuple[Room, ...]
    decisions: tuple[tuple[ServableId, Decision], ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not any(decision.refusal for _, decision in self.decisions)


def run(
    argv: Sequence[str],
    nvml: Nvml,
    default_cache_dir: Path,
    base: Path,
    ask_pool: Callable[[Path], bytes] = control_client.status,
) -> int:
    """Print the plan; 0 when everything fits, 1 when not, or when it cannot be made. Raises UsageError.

    `base`: where runtime directories of pools are; `ask_pool`: the status document of the pool that has one.
    """
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    try:
        made = _of_command_line([arg for arg in argv if arg != "--json"], nvml, default_cache_dir, base, ask_pool)
    except UsageError:
        raise
    except PoolError as error:
        print(f"modelpool plan: {error.message}", file=sys.stderr)
        return 1
    try:
        print(json.dumps(document(made), indent=1) if "--json" in argv else "\n".join(lines(made)), flush=True)
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has; what is left in the buffer is not to be tried again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if made.fits else 1


def _of_command_line(
    argv: Sequence[str], nvml: Nvml, default_cache_dir: Path, base: Path, ask_pool: Callable[[Path], bytes]
) -> Plan:
    if argv and not argv[0].startswith("-"):
        argv = [f"--model_config_file={argv[0]}", *argv[1:]]
    if not argv:
        raise UsageError(f"expected a model config file\n{_USAGE}".rstrip())
    given = command_line.parse(argv)
    settings = config.from_flags(given, Path(), default_cache_dir, 1)
    pool_file = pool_config.read(settings.pool_config_file)
    folder = Path(pool_file.source.cache_dir or default_cache_dir)
    fraction = session_config.gpu_memory_fraction(settings.platform)
    runs_on_cpu = partial(session_config.runs_on_cpu, settings.platform)
    places = Places(Inventory.of(nvml.look()), memory_book.read(folder), fraction, runs_on_cpu)
    path = (
        Path(given.runtime_dir)
        if given.runtime_dir
        else runtime_dir.default_path(base, given.port, given.rest_api_port)
    )
    budgets: Mapping[str, int] = {}
    notes = []
    if places.inventory.gpus and runtime_dir.is_live(path):
        try:
            budgets = _budgets(json.loads(ask_pool(path)))
        except PoolError as error:
            notes.append(f"{error.message}: what its workers hold counts as OTHERS here")
        else:
            notes.append(f"the pool at {path} runs: the plan is for its models' being loaded anew")
    made = plan(settings.read_models(), pool_file, places, str(folder), budgets)
    return replace(made, notes=(*notes, *made.notes))


def _budgets(status: Mapping[str, Any]) -> dict[str, int]:
    """What others leave to this pool of each GPU, by UUID."""
    return {each["uuid"]: each["budget_bytes"] for each in status["devices"] if each["budget_bytes"] is not None}


def plan(
    models: Sequence[ModelConfig],
    pool_file: PoolFile,
    places: Places,
    cache_dir: str = "",
    budgets: Mapping[str, int] | None = None,
) -> Plan:
    """Place every version that a start would load, in the order of the configuration, which is also a start's.

    But for a folder that takes longer than `turns.LOOK_S` to look at, or to become whole: others go before it.
    `budgets`: what is there for our slots, by UUID, where that is known better than by NVML.
    """
    rooms = places.rooms(())
    notes = [f"{id_} cannot be used: {why}" for id_, why in places.inventory.silent.items()]
    for room in rooms:
        room.budget_bytes = (budgets or {}).get(room.device.cuda_visible_devices, room.budget_bytes)
    decisions: list[tuple[ServableId, Decision]] = []
    for model in models:
        policy = device_policy(pool_file.policy(model.name))
        for name in unknown_names(policy, places.inventory.devices):
            notes.append(f"{model.name}: devices names {name}, which this host does not have")
        try:
            versions = source.wanted_versions(model, SourceOptions(cache_dir=cache_dir))
        except PoolError as error:
            notes.append(f"{model.name}: {error.message}")
            continue
        if not versions:
            notes.append(f"{model.name}: no version below {model.base_path}")
        for version in reversed(versions):
            servable = Servable(ServableId(model.name, version), str(Path(split_uri(model.base_path)[1], str(version))))
            decisions.append((servable.id, places.arrange(servable, policy, rooms)))
    return Plan(tuple(rooms), tuple(decisions), tuple(notes))


def lines(made: Plan) -> Iterator[str]:
    """The plan for people."""
    yield from _table(
        ("DEVICE", "PRODUCT", "MEMORY", "OTHERS", "CLAIMED", "FREE", "UUID"), map(_device_cells, made.rooms)
    )
    yield ""
    rows = [
        (str(new.slot), new.device.id, amount(new.claim_bytes, up=True) if new.claim_bytes else "-")
        for _, decision in made.decisions
        for new in decision.add
    ]
    yield from _table(("SLOT", "DEVICE", "GPU MEMORY"), rows)
    for note in made.notes:
        yield f"note: {note}"
    for _, decision in made.decisions:
        if decision.refusal:
            yield f"does not fit: {decision.refusal}"


def document(made: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "devices": [
            {**_described(room.device), "lost": room.lost, "budget_bytes": room.budget_bytes, "free_bytes": _free(room)}
            for room in made.rooms
        ],
        "servables": [
            {
                "name": id_.name,
                "version": id_.version,
                "wanted_workers": decision.wanted,
                "workers": [
                    {"device": new.device.id, "replica": new.slot.replica, "gpu_claim_bytes": new.claim_bytes}
                    for new in decision.add
                ],
                "placement_error": decision.refusal,
            }
            for id_, decision in made.decisions
        ],
        "notes": list(made.notes),
        "fits": made.fits,
    }


def _described(device: Device) -> dict[str, Any]:
    uuid = device.cuda_visible_devices if device.is_gpu else ""
    return {"id": device.id, "uuid": uuid, "product": device.product, "memory_bytes": device.memory_bytes}


def _free(room: Room) -> int | None:
    return room.free_bytes if room.accounted else None


def _device_cells(room: Room) -> tuple[str, ...]:
    device = room.device
    if not room.accounted:
        return (
            device.id,
            device.product or "-",
            "-",
            "-",
            "-",
            "-",
            device.cuda_visible_devices if device.is_gpu else "-",
        )
    others = device.memory_bytes - room.budget_bytes
    sizes = (device.memory_bytes, others, room.budget_bytes - room.free_bytes, room.free_bytes)
    lost = f" LOST: {room.lost}" if room.lost else ""
    return (device.id, device.product, *map(amount, sizes), device.cuda_visible_devices + lost)


def _table(heading: tuple[str, ...], rows: Any) -> Iterator[str]:
    table = [heading, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heading))]
    for row in table:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
