"""Which CPUs a worker may use, and what weight it has there. Linux; before TensorFlow makes its threads."""

import logging
import math
import os
from collections.abc import Sequence

from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

# Weights are nice values: each step is a fifth less of the CPU when it is short (sched(7): about 1.25 a step).
FULL_WEIGHT = 100
_STEP = 1.25
_MOST_NICE = 19


def confine(cpus: Sequence[int], weight: int) -> None:
    """Keep this thread, and those that it will make, to these CPUs (all when empty) and to this weight."""
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            # This machine may have others than the one that the file was written for.
            log.warning("cpus not set %s", fields(cpus=list(cpus), error=error))
    nice = nice_of(weight)
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + nice)


def nice_of(weight: int) -> int:
    """How much nicer a process of this weight is than one of FULL_WEIGHT."""
    return min(_MOST_NICE, round(math.log(FULL_WEIGHT / weight, _STEP)))
