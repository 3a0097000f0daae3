"""The life of a slot: one table of states and events. Knows nothing of processes, clocks or messages.

    PENDING -> STARTING -> LOADING -> WARMING -> READY -> DRAINING -> STOPPED
    any living state -EXITED-> BACKOFF -RETRY-> PENDING, or -GIVE_UP-> FAILED -RETRY-> PENDING (half open)
    any living state -KILL-> KILLING -EXITED-> BACKOFF

A process that has been told to go is not gone: KILLING and DRAINING last until its exit is seen, because only the
exit gives the memory back. An event that the table does not allow raises: it is a bug in the caller.
"""

from enum import StrEnum


class SlotState(StrEnum):
    """Where a slot is in its life; `ALIVE` are those in which it has a process."""

    PENDING = "pending"
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    BACKOFF = "backoff"
    FAILED = "failed"
    KILLING = "killing"


class SlotEvent(StrEnum):
    """What takes a slot from one state to another."""

    SPAWN = "spawn"
    """A process was asked for."""
    LOADING = "loading"
    """The worker has begun to load its model."""
    WARMING = "warming"
    """The worker replays its warmup records."""
    READY = "ready"
    """The worker takes requests."""
    KILL = "kill"
    """The process must go: it hangs, or is overdue, or its load failed."""
    EXITED = "exited"
    """The process is gone."""
    RETRY = "retry"
    """The wait before the next try is over."""
    GIVE_UP = "give_up"
    """No more tries, or none for a long time."""
    UNLOAD = "unload"
    """Nobody wants this slot any more."""


_S, _E = SlotState, SlotEvent

ALIVE = frozenset({_S.STARTING, _S.LOADING, _S.WARMING, _S.READY, _S.DRAINING, _S.KILLING})
"""States in which the slot has a process."""

LOADING = frozenset({_S.STARTING, _S.LOADING, _S.WARMING})
"""States in which a process is on its way to READY."""

TRANSITIONS: dict[tuple[SlotState, SlotEvent], SlotState] = {
    (_S.PENDING, _E.SPAWN): _S.STARTING,
    (_S.STARTING, _E.LOADING): _S.LOADING,
    (_S.LOADING, _E.WARMING): _S.WARMING,
    (_S.LOADING, _E.READY): _S.READY,
    (_S.WARMING, _E.READY): _S.READY,
    (_S.STARTING, _E.KILL): _S.KILLING,
    (_S.LOADING, _E.KILL): _S.KILLING,
    (_S.WARMING, _E.KILL): _S.KILLING,
    (_S.READY, _E.KILL): _S.KILLING,
    (_S.STARTING, _E.EXITED): _S.BACKOFF,
    (_S.LOADING, _E.EXITED): _S.BACKOFF,
    (_S.WARMING, _E.EXITED): _S.BACKOFF,
    (_S.READY, _E.EXITED): _S.BACKOFF,
    (_S.KILLING, _E.EXITED): _S.BACKOFF,
    (_S.BACKOFF, _E.RETRY): _S.PENDING,
    (_S.BACKOFF, _E.GIVE_UP): _S.FAILED,
    (_S.FAILED, _E.RETRY): _S.PENDING,
    (_S.STARTING, _E.UNLOAD): _S.DRAINING,
    (_S.LOADING, _E.UNLOAD): _S.DRAINING,
    (_S.WARMING, _E.UNLOAD): _S.DRAINING,
    (_S.READY, _E.UNLOAD): _S.DRAINING,
    (_S.KILLING, _E.UNLOAD): _S.DRAINING,
    (_S.PENDING, _E.UNLOAD): _S.STOPPED,
    (_S.BACKOFF, _E.UNLOAD): _S.STOPPED,
    (_S.FAILED, _E.UNLOAD): _S.STOPPED,
    (_S.DRAINING, _E.EXITED): _S.STOPPED,
}


class IllegalTransition(AssertionError):
    """An event that the life cycle does not allow in this state."""


def reduce(state: SlotState, event: SlotEvent) -> SlotState:
    """The state after `event`. Raises IllegalTransition when the table has no such entry."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"slot state {state}: event {event} is not allowed") from None
