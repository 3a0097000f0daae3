"""What to do about the memory that a worker has, where its model has a limit. Pure.

The limit (`host_memory_mb`) is of one process, and of the memory that it has for itself: what it shares with the fork
server, TensorFlow's code above all, is not counted, nor are requests in shared memory. One that is over it is killed.
One that is about to be is replaced by a fresh one before, if that helps: a worker that leaks starts small.
"""

from dataclasses import dataclass
from enum import StrEnum

MARK = 0.85
"""The part of its limit at which a worker is replaced."""
# A fresh worker that is not smaller by this part of the limit would be at the mark again at once.
_LEAST_GAIN = 0.1
# How many times as long as it took to become ready it must have served, or loading would be all that is done.
_LEAST_LIFE = 2.0
_LEAST_LIFE_S = 1.0


class Verdict(StrEnum):
    """What a sample asks for: nothing, a fresh worker in this one's place, or its end."""

    FINE = "fine"
    RENEW = "renew"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of one process: `used_bytes` for itself of `limit_bytes`; `available_bytes` are left for all.

    `enforced_by`: who kills it when it has too much: the kernel ("cgroup") or the supervisor, who looks ("watch").
    """

    used_bytes: int
    limit_bytes: int
    available_bytes: int
    enforced_by: str


def judge(sample: Sample, *, fresh_bytes: int | None, ready_for_s: float, load_s: float) -> Verdict:
    """`fresh_bytes`: what this process had when it was ready, None if it is not; `load_s`: how long that took."""
    if sample.used_bytes > sample.limit_bytes:
        return Verdict.OVER
    if fresh_bytes is None or sample.used_bytes < MARK * sample.limit_bytes:
        return Verdict.FINE
    helps = fresh_bytes <= sample.used_bytes - _LEAST_GAIN * sample.limit_bytes
    worth_it = ready_for_s >= max(_LEAST_LIFE_S, _LEAST_LIFE * load_s)
    fits = fresh_bytes <= sample.available_bytes
    return Verdict.RENEW if helps and worth_it and fits else Verdict.FINE
