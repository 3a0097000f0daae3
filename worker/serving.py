"""How one worker's model is served: what is batched, in how many threads it runs, and where its graphs do.

Puts together what the specification asks for and what is found of the loaded model. Main thread, before READY.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelpool.supervisor.wire import batching_params, cpu_count
from modelpool.supervisor.wire.flight_recorder import CAPACITY
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.route_table import MOST_QUEUED_REQUESTS
from modelpool.supervisor.wire.status import PoolError
from modelpool.supervisor.wire.worker_spec import Batching, WorkerSpec

from . import batch_tensors, soundness, thread_choice
from .batched_work import Batched
from .batching import AutoBatcher, Batcher
from .executor import Executor
from .executors import Executors, FixedExecutors, LearnedExecutors
from .jobs import Task
from .learned_limit import LearnedLimit
from .metrics import WorkerMetrics
from .plan import Model, Plan
from .predict_forms import Forms
from .soundness import Seen
from .waiting_tables import WaitingTables
from .work import Unbatched, Work

log = logging.getLogger(__name__)

# Inputs of the warmup that are kept until the model serves.
_MAX_SEEN = 32
_MAX_SEEN_BYTES = 64 << 20
# Different signatures, or sets of them, that learn for themselves; more share what they learn.
_MAX_LEARNERS = 64
# What has not changed is told after so many runs: to tell costs as much as to learn.
_TELL_EVERY = 32
# More executors than these are for the operator to ask for.
_MOST_LEARNED = 4
# They share the flight recorder, and a batch has what one of them may fill.
MOST_EXECUTORS = 64
_NO_GPU = "-1"


class Watched:
    """A model that remembers what it is run with, a little of it, until told to forget."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._seen: list[tuple[Mapping[str, np.ndarray], Sequence[str]]] = []
        self._bytes = 0

    @property
    def signatures(self) -> Mapping[str, Any]:
        return self._model.signatures

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """As `Model.run`."""
        outputs = self._model.run(feeds, fetches)
        size = sum(array.nbytes for array in feeds.values())
        if len(self._seen) < _MAX_SEEN and self._bytes + size <= _MAX_SEEN_BYTES:
            self._seen.append((feeds, fetches))
            self._bytes += size
        return outputs

    def seen(self) -> Seen:
        """What it was run with; it remembers no more."""
        seen, self._seen, self._bytes = self._seen, [], _MAX_SEEN_BYTES + 1
        return seen


def batching_of(spec: WorkerSpec) -> Batching | None:
    """TF Serving's batching of this version, by flags or by its own file; None: there is none. Raises PoolError."""
    if not spec.per_model_batching or spec.batching is None:
        return spec.batching
    path = Path(spec.path) / batching_params.FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")  # comments may be in any other
    except FileNotFoundError:
        return None
    return batching_params.of_version(text, str(path), spec.batching)


def executors_of(spec: WorkerSpec, batching: Batching | None, model: Model, metrics: WorkerMetrics) -> Executors:
    """How many runs of the model go on at the same time."""
    if getattr(model, "single_threaded", False):
        if spec.executors > 1:
            log.warning("one executor: TensorFlow Lite models run in one thread %s", fields(wanted=spec.executors))
        return FixedExecutors()
    wanted = (batching.num_batch_threads if batching is not None else 0) or spec.executors
    if wanted > MOST_EXECUTORS:
        log.warning("executors %s", fields(count=MOST_EXECUTORS, wanted=wanted, why="more would only wait for CPUs"))
    if wanted:
        return FixedExecutors(min(wanted, MOST_EXECUTORS))
    most = 1 << min(_MOST_LEARNED, cpu_count.available()).bit_length() - 1
    why_not = _why_one_executor(spec, model) if most > 1 else "one CPU"
    if why_not:
        log.info("one executor %s", fields(why=why_not))
        return FixedExecutors()

    def learned(count: int, rates: dict[int, float]) -> None:
        log.info(
            "executors %s", fields(count=count, **{f"requests_per_s_of_{n}": f"{r:.0f}" for n, r in rates.items()})
        )
        metrics.executors(count)

    metrics.executors(1)
    return LearnedExecutors(most, learned)


def _why_one_executor(spec: WorkerSpec, model: Model) -> str:
    """What forbids to try several unasked; "" for nothing. Two runs take the memory of two, which GPUs lack first."""
    if not spec.run_again:
        return "retry_on_crash is never"
    if spec.host_memory_bytes:
        return "its memory is limited"
    if spec.cuda_visible_devices != _NO_GPU:
        return "it has a GPU"
    fetches = {info.name for signature in model.signatures.values() for info in signature.outputs.values()}
    try:
        changes = changing_of(model)(fetches)
    except ValueError as error:  # a graph of more than 2 GiB cannot be looked at
        return str(error)
    return f"it changes state: {', '.join(changes)}" if changes else ""


def work_of(
    spec: WorkerSpec,
    batching: Batching | None,
    model: Model,
    executor: Executor,
    *,
    executors: int,
    metrics: WorkerMetrics,
    seen: Seen,
    forms: Forms | None = None,
) -> Work:
    """What decides on what is executed next, by so many `executors` at the most. `forms`: of Predict's requests."""
    # What is executed at the same time has to fit the flight recorder, and what is planned beside it.
    share = CAPACITY // (executors + 1)
    if batching is not None:
        metrics.batches(batching.thread_pool_name)
        batcher: Batcher[Task] = Batcher(batching, MOST_QUEUED_REQUESTS, share)
        pads = batching.pad_variable_length_inputs
        return Batched(executor, batcher, whole_signatures(model), pads=pads, at_once=share)
    if not spec.auto_batching:
        return Unbatched(executor)
    verdicts = soundness.judge(model, changing_of(model), seen)
    sound = frozenset(key for key, verdict in verdicts.items() if verdict.sound)
    if not sound:
        return Unbatched(executor)
    metrics.batches("auto")
    learners = Learners(spec.latency_target_ms / 1e3, metrics.learned)
    auto: AutoBatcher[Task] = AutoBatcher(learners.of, learners.ran, share)
    tables = None if forms is None else WaitingTables(forms, learners.of, share)
    return Batched(executor, auto, lambda plan: _sound_family(sound, plan), at_once=share, tables=tables)


def whole_signatures(model: Model) -> Callable[[Plan], Hashable | None]:
    """What TF Serving batches: runs that feed and fetch all tensors of a signature, and no others.

    With an output_filter, or of several signatures at once, they bypass its batcher (batching_session.cc InternalRun:
    nothing asks it for a scheduler of those that match no SignatureDef).
    """
    whole = {
        (
            frozenset(info.name for info in signature.inputs.values()),
            frozenset(info.name for info in signature.outputs.values()),
        )
        for signature in model.signatures.values()
    }

    def family(plan: Plan) -> Hashable | None:
        assert plan.feeds is not None
        return plan.signatures if (frozenset(plan.feeds), frozenset(plan.fetches)) in whole else None

    return family


def _sound_family(sound: frozenset[str], plan: Plan) -> Hashable | None:
    if not sound.issuperset(plan.signatures) or plan.feeds is None:
        return None
    try:
        batch_tensors.rows_of(plan.feeds)
    except PoolError:
        return None  # what the model says to that is for the client to see
    return plan.signatures


class Learners:
    """The LearnedLimit of each family; `tell(family's name, rows, rows per second)` when one has learned other rows,
    and now and then.
    """

    def __init__(self, target_s: float, tell: Callable[[str, int, float], None]) -> None:
        self._target_s = target_s
        self._tell = tell
        self._of: dict[Hashable, LearnedLimit] = {}
        self._others = LearnedLimit(target_s)
        self._told: dict[LearnedLimit, tuple[int, int]] = {}
        """The rows of each that were told last, and how many runs there were since."""

    def of(self, family: Hashable) -> LearnedLimit:
        known = self._of.get(family)
        if known is None:
            if len(self._of) >= _MAX_LEARNERS:
                return self._others
            known = self._of[family] = LearnedLimit(self._target_s)
        return known

    def ran(self, family: Hashable, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""
        learner = self.of(family)
        learner.observe(rows, took_s)
        rows, runs = self._told.get(learner, (0, 0))
        known = learner.rows == rows and runs < _TELL_EVERY
        self._told[learner] = learner.rows, runs + 1 if known else 0
        if known:
            return
        name = ",".join(family) if isinstance(family, tuple) and family in self._of else "other"
        self._tell(name, learner.rows, learner.rows_per_s)


def changing_of(model: Model) -> Callable[[Any], list[str]]:
    """The model's own word on which operations change state; one that has none to say keeps none."""
    found: Callable[[Any], list[str]] | None = getattr(model, "changing_operations", None)
    return found if found is not None else lambda fetches: []


def allow_splitting(model: Any, seen: Seen) -> None:
    """Let a model that runs the rows of one request side by side do so where that makes no difference to the answer."""
    if getattr(model, "interpreters", 1) > 1:
        verdicts = soundness.divisible(model, changing_of(model), seen)
        model.split({key for key, verdict in verdicts.items() if verdict.sound})


def choose_threads(model: Any, seen: Seen) -> None:
    """Have graphs run in TensorFlow's pool where that is faster. Not where the operator has decided."""
    inputs = thread_choice.sample(seen)
    if not inputs or getattr(model, "wants_pool", True) or model.changing_operations(_all_fetches(inputs)):
        return

    def run(in_pool: bool, number: int) -> None:
        if in_pool is not state[0]:
            model.use_pool(in_pool)
            state[0] = in_pool
        model.run(*inputs[number])

    state = [False]
    in_pool = False
    try:
        in_pool = thread_choice.pool_is_faster(run, len(inputs))
    except PoolError as error:
        log.warning("threads not compared %s", fields(error=error.message))
    model.use_pool(in_pool)
    log.info("graphs run %s", fields(where="in TensorFlow's pool" if in_pool else "in the caller's thread"))


def _all_fetches(inputs: Seen) -> set[str]:
    return {name for _, fetches in inputs for name in fetches}
