"""Which requests share one run of the model, and when it is due. Pure: tasks and times in, batches out.

Tasks of one key can be put together, row below row. `Batcher` is TF Serving's scheduler with its parameters
(tensorflow/core/kernels/batching_util/shared_batch_scheduler.h): a batch waits until it is full or its time is over.
`AutoBatcher` takes what waits whenever somebody is free to execute it, as many rows as have been learned to be good.
Knows nothing of tensors, models or threads.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, Protocol, TypeVar

from modelpool.supervisor.wire.status import InvalidArgument, Unavailable
from modelpool.supervisor.wire.worker_spec import Batching

from .learned_limit import LearnedLimit

FULL = "The batch scheduling queue to which this task was submitted is full"

MAX_TASKS = 2048


class Task(Protocol):
    """One request. `rows` is at least 1; `family` tells tasks apart whose runs cost differently."""

    @property
    def key(self) -> Hashable: ...

    @property
    def family(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...


T = TypeVar("T", bound=Task)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Rows `start` to `stop` of a task."""

    task: T
    start: int
    stop: int


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """Parts of tasks of one key. `opened_ns`: when the first came. `begun`: a part of it was taken before."""

    opened_ns: int
    parts: list[Part[T]] = field(default_factory=list)
    rows: int = 0
    begun: bool = False

    def add(self, task: T, start: int, stop: int) -> None:
        self.parts.append(Part(task, start, stop))
        self.rows += stop - start

    def drop(self, gone: Callable[[T], bool]) -> None:
        self._keep([part for part in self.parts if not gone(part.task)])

    def first(self, count: int) -> "Batch[T]":
        """So many of its parts, which it then has no more."""
        taken: Batch[T] = Batch(self.opened_ns)
        taken._keep(self.parts[:count])
        self._keep(self.parts[count:])
        self.begun = True
        return taken

    def _keep(self, parts: list[Part[T]]) -> None:
        self.parts = parts
        self.rows = sum(part.stop - part.start for part in parts)


class Batcher(Generic[T]):
    """TF Serving's scheduler. Each key has a queue of its own, with its own bound, as each signature has there."""

    strict = True
    """A run's outputs must be rows, of a task by itself as well."""

    def __init__(self, settings: Batching, max_tasks: int = MAX_TASKS, max_parts: int = MAX_TASKS) -> None:
        """`max_tasks` may wait, whatever their keys. Of a batch `max_parts` are taken at a time, the others next."""
        self._settings = settings
        self._max_tasks = max_tasks
        self._max_parts = max_parts
        self._limit = execution_limit(settings)
        self._timeout_ns = settings.batch_timeout_micros * 1000
        self._queues: dict[Hashable, deque[Batch[T]]] = {}
        self._tasks = 0

    def __len__(self) -> int:
        return self._tasks

    def add(self, task: T, now_ns: int) -> None:
        """Raises InvalidArgument for a task that is too large, Unavailable when its queue is full."""
        rows, limit = task.rows, self._settings.max_batch_size
        if rows > limit:
            raise InvalidArgument(f"Task size {rows} is larger than maximum input batch size {limit}")
        if self._tasks >= self._max_tasks:
            raise Unavailable(FULL)
        queue = self._queues.get(task.key)
        if self._settings.enable_large_batch_splitting:
            self._check_capacity(rows, queue or ())
        elif queue and queue[-1].rows + rows > limit and len(queue) >= self._settings.max_enqueued_batches:
            raise Unavailable(
                f"{FULL}; currently {len(queue)} batches enqueued and max_enqueued_batches is "
                f"{self._settings.max_enqueued_batches}"
            )
        if queue is None:
            queue = self._queues[task.key] = deque()
        self._tasks += 1
        self._put(task, queue, now_ns)

    def _put(self, task: T, queue: deque[Batch[T]], now_ns: int) -> None:
        start = 0
        while start < task.rows:
            room = self._limit - queue[-1].rows if queue else 0
            if room < task.rows - start and not (self._settings.enable_large_batch_splitting and room):
                queue.append(Batch(now_ns))
                room = self._limit
            stop = min(task.rows, start + room)
            queue[-1].add(task, start, stop)
            start = stop

    def _check_capacity(self, rows: int, queue: "Iterable[Batch[T]]") -> None:
        """Of a queue whose tasks are split. The open batch counts, whether there is anything in it or not."""
        batches = [batch.rows for batch in queue] or [0]
        most = self._settings.max_enqueued_batches
        capacity = (most - len(batches)) * self._limit + self._limit - batches[-1]
        if rows > capacity:
            raise Unavailable(
                f"{FULL}; task size is {rows} but scheduling capacity is only {capacity} "
                f"(num_enqueued_batches={len(batches)}, max_enqueued_batches={most}, open_batch_size={batches[-1]}, "
                f"max_execution_batch_size={self._limit})"
            )

    def take(self, now_ns: int) -> Batch[T] | None:
        """The batch that is due for the longest, if any is."""
        due = [key for key, queue in self._queues.items() if self._due_ns(queue) <= now_ns]
        if not due:
            return None
        key = min(due, key=lambda each: self._queues[each][0].opened_ns)
        queue = self._queues[key]
        too_many = len(queue[0].parts) > self._max_parts
        batch = queue[0].first(self._max_parts) if too_many else queue.popleft()
        if not queue:
            del self._queues[key]
        self._tasks -= sum(part.stop == part.task.rows for part in batch.parts)
        return batch

    def due_ns(self) -> int | None:
        """When the next batch is due if nothing comes; None while nothing waits."""
        return min(map(self._due_ns, self._queues.values()), default=None)

    def _due_ns(self, queue: deque[Batch[T]]) -> int:
        """A batch behind which another has begun is closed, and due since it was opened; so is a full one, and the rest
        of one.
        """
        first = queue[0]
        closed = len(queue) > 1 or first.rows >= self._limit or first.begun
        return first.opened_ns if closed else first.opened_ns + self._timeout_ns

    def drop(self, gone: Callable[[T], bool]) -> None:
        """Forget the tasks for which `gone` is true."""
        for key, queue in list(self._queues.items()):
            for batch in queue:
                self._tasks -= sum(gone(part.task) and part.stop == part.task.rows for part in batch.parts)
                batch.drop(gone)
            left = deque(batch for batch in queue if batch.parts)
            if left:
                self._queues[key] = left
            else:
                del self._queues[key]

    def hurry(self) -> None:
        """From now on no batch waits for others (shared_batch_scheduler.h: of a queue that is closed none does)."""
        self._timeout_ns = 0

    def wants(self) -> bool:
        """Whether tasks that wait elsewhere should be added now: always, since a full queue is an answer."""
        return True

    def pieces(self, rows: int) -> list[tuple[int, int]]:
        """From where to where so many rows are run of a task that shares no run."""
        return [(start, min(rows, start + self._limit)) for start in range(0, rows, self._limit)]

    def padded(self, rows: int) -> int:
        """How many rows are executed for so many: the next allowed size."""
        return next((size for size in self._settings.allowed_batch_sizes if size >= rows), rows)

    def observe(self, family: Hashable, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""


class AutoBatcher(Generic[T]):
    """Takes what waits, oldest first, up to the number of rows that `limit_of` its family has learned.

    `ran(family, rows, seconds)` is told of each run.
    """

    strict = False

    def __init__(
        self,
        limit_of: Callable[[Hashable], LearnedLimit],
        ran: Callable[[Hashable, int, float], None],
        max_tasks: int = MAX_TASKS,
    ) -> None:
        self.observe = ran
        self._limit_of = limit_of
        self._max_tasks = max_tasks
        self._tasks: dict[Hashable, deque[tuple[T, int]]] = {}
        self._rows: dict[Hashable, int] = {}
        """Of the tasks of each key: they are asked for with each task that comes."""
        self._order: list[tuple[int, int, Hashable]] = []
        """A heap of the keys by when their first task came, or one before it; some keys are there no more."""
        self._numbers = count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, task: T, now_ns: int) -> None:
        waiting = self._tasks.get(task.key)
        if waiting is None:
            waiting = self._tasks[task.key] = deque()
            self._rows[task.key] = 0
            heappush(self._order, (now_ns, next(self._numbers), task.key))
        waiting.append((task, now_ns))
        self._rows[task.key] += task.rows
        self._count += 1

    def take(self, now_ns: int) -> Batch[T] | None:
        """Of the key whose first task has waited for the longest. A task that is too large goes by itself."""
        key = self._oldest()
        if key is None:
            return None
        waiting = self._tasks[key]
        limit = self._limit_of(waiting[0][0].family).rows
        batch: Batch[T] = Batch(waiting[0][1])
        while waiting and (not batch.parts or batch.rows + waiting[0][0].rows <= limit):
            task, _ = waiting.popleft()
            batch.add(task, 0, task.rows)
        self._rows[key] -= batch.rows
        if not waiting:
            del self._tasks[key], self._rows[key]
        self._count -= len(batch.parts)
        return batch

    def _oldest(self) -> Hashable | None:
        order = self._order
        while order:
            came_ns, number, key = order[0]
            waiting = self._tasks.get(key)
            if waiting is None:
                heappop(order)
            elif waiting[0][1] > came_ns:  # the first is gone
                heapreplace(order, (waiting[0][1], number, key))
            else:
                return key
        return None

    def due_ns(self) -> int | None:
        key = self._oldest()
        return None if key is None else self._tasks[key][0][1]

    def drop(self, gone: Callable[[T], bool]) -> None:
        for key, waiting in list(self._tasks.items()):
            left = deque(each for each in waiting if not gone(each[0]))
            self._count -= len(waiting) - len(left)
            if left:
                self._tasks[key] = left
                self._rows[key] = sum(task.rows for task, _ in left)
            else:
                del self._tasks[key], self._rows[key]

    def hurry(self) -> None:
        """None waits for others anyway."""

    def wants(self) -> bool:
        """Until there is a batch: more would only wait here instead of there."""
        key = self._oldest()
        if key is None:
            return True
        limit = self._limit_of(self._tasks[key][0][0].family).rows
        return self._count < self._max_tasks and self._rows[key] < limit

    def pieces(self, rows: int) -> list[tuple[int, int]]:
        return [(0, rows)]

    def padded(self, rows: int) -> int:
        return rows


def execution_limit(settings: Batching) -> int:
    """Rows of one run at the most."""
    if settings.enable_large_batch_splitting and settings.max_execution_batch_size:
        return settings.max_execution_batch_size
    return settings.max_batch_size
