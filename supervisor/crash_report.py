"""What is known of a worker's death, as the JSON document that is kept of it. Pure.

Metadata of requests only, never their payloads. The shape is documented in the README and only grows.
"""

from typing import Any

from .exits import Exit
from .servable import Slot
from .wire.data import Method
from .wire.flight_recorder import Flight
from .wire.status import Code

# So many of the last finished requests are named, and so many that were executing: a batch at most.
MAX_FINISHED = 32
MAX_EXECUTING = 1024


def report(slot: Slot, exit_: Exit, now_s: float) -> dict[str, Any]:
    """The document of the death of the process in `slot`, which does not know of it yet."""
    remains, recording = exit_.remains, exit_.recording
    return {
        "model": slot.id.servable.name,
        "version": slot.id.servable.version,
        "device": slot.id.device,
        "replica": slot.id.replica,
        "incarnation": slot.incarnation,
        "pid": slot.pid,
        "kind": exit_.kind.value,
        "cause": exit_.cause,
        "signal": exit_.signal,
        "code": exit_.code,
        "state": slot.state.value,
        "state_s": round(max(0.0, now_s - slot.since_s), 3),
        "error": {"code": slot.error.code.name, "message": slot.error.message} if slot.load_failed else None,
        "load_s": slot.load_s if slot.was_ready else None,
        "warmup_s": slot.warmup_s if slot.was_ready else None,
        "served": slot.served,
        "restarts": slot.restarts,
        "peak_rss_bytes": remains.peak_rss_bytes,
        "stack": remains.stack,
        "stderr": remains.stderr,
        "executing": [_flight(each, now_s) for each in recording.executing[:MAX_EXECUTING]],
        "finished": [_flight(each, now_s) for each in recording.finished[-MAX_FINISHED:]],
    }


def _flight(flight: Flight, now_s: float) -> dict[str, Any]:
    """Times in seconds before the death."""
    told: dict[str, Any] = {
        "request": flight.request_id,
        "frontend": flight.frontend,
        "method": _name(Method, flight.method),
        "size_bytes": flight.size_bytes,
        "began_s_before": round(now_s - flight.began_ns / 1e9, 3),
    }
    if flight.ended_ns:
        told |= {"took_s": round((flight.ended_ns - flight.began_ns) / 1e9, 6), "code": _name(Code, flight.code)}
    return told


def _name(kind: type[Method] | type[Code], number: int) -> str:
    """A worker that went mad may have left any number."""
    try:
        return kind(number).name
    except ValueError:
        return str(number)
