"""Whether a model's graphs run in the caller's thread or in TensorFlow's pool: timed, not guessed.

In the caller's thread a small graph costs a fifth; in the pool operations that do not depend on each other run side by
side. The pool must win clearly. Pure but for the model and the clock.
"""

import statistics
import time
from collections.abc import Callable, Sequence

from .soundness import Seen
from .trial_inputs import Feeds

# A choice is made of at most so many different inputs, in about so much time.
MAX_INPUTS = 4
_BUDGET_S = 0.4
_MOST_RUNS = 30
# The pool costs wake-ups of other threads, which a quiet machine hides and a busy one does not.
_CLEARLY = 0.85


def pool_is_faster(run: Callable[[bool, int], None], inputs: int, clock: Callable[[], float] = time.monotonic) -> bool:
    """`run(in_pool, n)` runs the model once on input `n`, either way. In turn, so that both meet the same machine."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for in_pool in times:
        run(in_pool, 0)  # the first time a way is taken, things are set up
    started_s = clock()
    for turn in range(_MOST_RUNS):
        for in_pool, taken in times.items():
            began_s = clock()
            run(in_pool, turn % inputs)
            taken.append(clock() - began_s)
        if turn >= 2 and clock() - started_s > _BUDGET_S:
            break
    return statistics.median(times[True]) < _CLEARLY * statistics.median(times[False])


def sample(seen: Seen) -> Seen:
    """Those of different kinds first, at most MAX_INPUTS."""
    kinds: dict[object, tuple[Feeds, Sequence[str]]] = {}
    for feeds, fetches in seen:
        kinds.setdefault((tuple(fetches), *(array.shape for array in feeds.values())), (feeds, fetches))
    return list(kinds.values())[:MAX_INPUTS]
