"""States that cross a process border. The life cycle of a slot itself is the supervisor's own (`lifecycle`)."""

from enum import IntEnum, StrEnum


class ServableState(IntEnum):
    """What clients see; values of `tensorflow.serving.ModelVersionStatus.State` (get_model_status.proto)."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Harm(StrEnum):
    """What `modelpool chaos` does to a model; `CURE` ends a poison."""

    KILL = "kill"
    STOP = "stop"
    OOM = "oom"
    LEAK = "leak"
    POISON = "poison"
    CURE = "cure"


class LoadPriority(StrEnum):
    """What a worker that loads takes of CPUs that others want, too."""

    NORMAL = "normal"
    BEHIND = "behind"
    """Somewhat less than who serves."""
    IDLE = "idle"
    """What nobody else wants."""


class WorkerPhase(StrEnum):
    """What a worker that is not READY yet says it is doing."""

    LOADING = "loading"
    WARMING = "warming"
