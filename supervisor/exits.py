"""How a process ended, told apart: the words that the status, the metrics and crash reports share. Pure."""

import os
import signal
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .wire.flight_recorder import NO_RECORDING, Recording


class ExitKind(StrEnum):
    """Why a process is gone. Names are part of the status document and of crash reports: none changes."""

    STOPPED = "stopped"
    """It was not wanted any more."""
    SIGNAL = "signal"
    """By a signal that the supervisor did not send."""
    EXIT = "exit"
    """It ended itself, with an exit code."""
    NOT_STARTED = "not_started"
    """There never was a process, or none that could take its place: no fault of the model's."""
    LOAD_FAILED = "load_failed"
    WARMUP_FAILED = "warmup_failed"
    """The model was loaded, and a warmup record or a golden request failed."""
    HANG = "hang"
    """No heartbeat, an execution or a load that took too long, or no end when it was told to end."""
    MEMORY_LIMIT = "memory_limit"
    """Over its own `host_memory_mb`."""
    OOM_KILLED = "oom_killed"
    """By the kernel, which had no memory left for all."""
    CUDA_ERROR = "cuda_error"
    """Its CUDA context was lost, which only a new process gets back."""
    KILLED = "killed"
    """By the supervisor, for another reason."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What a worker left beside its recording. `stack`: of its threads, where it crashed or hung; `stderr`: the end of
    what it wrote there; `peak_rss_bytes`: the most memory it ever had.
    """

    stack: str = ""
    stderr: str = ""
    peak_rss_bytes: int | None = None


NO_REMAINS = Remains()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by `signal`, or with `code`; neither when it never ran. `cause` says it in words.

    `special`: what is known of the kind beyond these. `remains`: what a worker left.
    """

    code: int | None
    signal: int | None
    cause: str
    recording: Recording = NO_RECORDING
    special: ExitKind | None = None
    remains: "Remains" = field(default_factory=lambda: NO_REMAINS)

    @classmethod
    def from_wait_status(cls, status: int) -> "Exit":
        """By the status that waitpid(2) gives."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return cls(None, number, f"killed by {signal_name(number)}")
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None, f"exited with code {code}")

    def explained(self, cause: str, kind: ExitKind) -> "Exit":
        """The same end, with what is known of it beside."""
        plain = replace(self, cause=cause, special=None)
        return plain if plain.kind is kind else replace(plain, special=kind)

    def alone(self) -> "Exit":
        """Without what the process left, which is not to be kept for long."""
        return replace(self, recording=NO_RECORDING, remains=NO_REMAINS)

    @property
    def kind(self) -> ExitKind:
        """What is known of it, else what code and signal say."""
        if self.special is not None:
            return self.special
        if self.signal is not None:
            return ExitKind.SIGNAL
        return ExitKind.NOT_STARTED if self.code is None else ExitKind.EXIT


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
