"""What `GET /pool/v1/status` and `modelpool status --json` answer: the whole pool as one JSON document.

The shape is documented in the README and only grows: later versions add keys, they do not change or drop any.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import psutil

from .devices import Reading
from .exits import Exit
from .manager import Manager
from .model import Model
from .placement import Room
from .servable import Servable, Slot
from .wire.frontend_messages import FrontendStats
from .wire.ids import Incarnation
from .wire.status import Status


def pool_status(
    manager: Manager,
    frontends: Mapping[Incarnation, tuple[int, FrontendStats | None]],
    supervisor: Mapping[str, Any],
    now_s: float,
) -> dict[str, Any]:
    """The document. `frontends`: pid and last statistics of each; `supervisor`: what the caller adds of itself."""
    in_flight: dict[int, int] = {}
    for _, stats in frontends.values():
        for worker, count in (stats.in_flight if stats is not None else {}).items():
            in_flight[worker] = in_flight.get(worker, 0) + count
    acked = manager.board.frontends
    return {
        "models": [_model(model, in_flight, now_s) for model in manager.models.values()],
        "frontends": [
            {
                "pid": pid,
                "incarnation": incarnation,
                "rss_bytes": rss_bytes(pid),
                "routes_epoch": acked.get(incarnation, 0),
                "answered": stats.answered if stats is not None else 0,
            }
            for incarnation, (pid, stats) in frontends.items()
        ],
        "devices": _devices(manager),
        "supervisor": {
            "pid": os.getpid(),
            "rss_bytes": rss_bytes(os.getpid()),
            "routes_epoch": manager.board.table.epoch,
            **supervisor,
        },
    }


def _devices(manager: Manager) -> list[dict[str, Any]]:
    places = manager.places
    slots = [slot for model in manager.models.values() for servable in model.newest_first() for slot in servable.slots]
    return [_device(room, places.inventory.readings.get(room.device.id)) for room in places.rooms(slots)]


def _device(room: Room, reading: Reading | None) -> dict[str, Any]:
    """Figures are null where nothing is read: of the CPU, and of a GPU that does not answer."""
    answers = reading is not None and not reading.error
    return {
        "id": room.device.id,
        "uuid": room.device.cuda_visible_devices if room.device.is_gpu else "",
        "product": room.device.product,
        "lost": room.lost,
        "workers": len(room.tenants),
        "memory_bytes": room.device.memory_bytes or None,
        "used_bytes": reading.used_bytes if reading is not None and answers else None,
        "budget_bytes": room.budget_bytes if room.accounted else None,
        "claimed_bytes": sum(tenant.claim_bytes for tenant in room.tenants) if room.accounted else None,
        "utilization_percent": reading.utilization_percent if reading is not None else None,
        "ecc_errors": reading.ecc_errors if reading is not None else None,
    }


def to_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


def rss_bytes(pid: int | None) -> int | None:
    """Resident memory; None when the process is gone."""
    if pid is None:
        return None
    try:
        rss: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return None
    return rss


def _asked(question: Callable[..., int], *about: int | None) -> int | None:
    """What the kernel says of a process; None when it is gone."""
    try:
        return None if None in about else question(*about)
    except OSError:
        return None


def _model(model: Model, in_flight: Mapping[int, int], now_s: float) -> dict[str, Any]:
    return {
        "name": model.name,
        "source_error": _error(model.source_error),
        "source_notes": list(model.source_notes),
        "rolled_back_to": model.fallback,
        "versions": [_version(servable, _labels(model), in_flight, now_s) for servable in model.newest_first()],
    }


def _labels(model: Model) -> dict[int, list[str]]:
    """The labels of each version."""
    labels: dict[int, list[str]] = {}
    for label, version in sorted(model.settings.labels.items()):
        labels.setdefault(version, []).append(label)
    return labels


def _version(
    servable: Servable, labels: Mapping[int, list[str]], in_flight: Mapping[int, int], now_s: float
) -> dict[str, Any]:
    return {
        "version": servable.id.version,
        "labels": labels.get(servable.id.version, []),
        "state": servable.state.name,
        "aspired": servable.aspired,
        "path": servable.path,
        "error": _error(servable.error),
        "wanted_workers": servable.wanted_slots,
        "placement_error": servable.refusal,
        "workers": [_worker(slot, in_flight, now_s) for slot in servable.slots],
    }


def _worker(slot: Slot, in_flight: Mapping[int, int], now_s: float) -> dict[str, Any]:
    return {
        "pid": slot.pid,
        "device": slot.device.id,
        "replica": slot.id.replica,
        "gpu_claim_bytes": slot.claim_bytes,
        "waits_for": slot.waits_for,
        "incarnation": slot.incarnation,
        "state": slot.state.value,
        "role": _role(slot),
        "state_s": round(max(0.0, now_s - slot.since_s), 3),
        "restarts": slot.restarts,
        "last_exit": _exit(slot.last_exit),
        "error": _error(slot.error),
        "retry_in_s": None if slot.retry_at_s is None else round(max(0.0, slot.retry_at_s - now_s), 3),
        "rss_bytes": rss_bytes(slot.pid),
        "nice": _asked(os.getpriority, os.PRIO_PROCESS, slot.pid),
        "idle_priority": _asked(os.sched_getscheduler, slot.pid) == os.SCHED_IDLE,
        "memory": None if slot.memory is None else asdict(slot.memory),
        "in_flight": in_flight.get(slot.incarnation or 0, 0),
        "served": slot.served_before + slot.served,
        "load_s": slot.load_s,
        "warmup_s": slot.warmup_s,
    }


def _role(slot: Slot) -> str:
    if slot.replaces is not None:
        return "replacement"
    return "replaced" if slot.succeeded_by is not None else "main"


def _exit(exit_: Exit | None) -> dict[str, Any] | None:
    if exit_ is None:
        return None
    return {"signal": exit_.signal, "code": exit_.code, "cause": exit_.cause, "kind": exit_.kind.value}


def _error(status: Status) -> dict[str, str]:
    return {"code": status.code.name, "message": status.message}
