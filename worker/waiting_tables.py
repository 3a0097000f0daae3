"""Tables of requests that wait for a run: what a batcher is for single ones. Pure; main thread of the worker.

It takes what waits, oldest first, as `batching.AutoBatcher` does, and with the same learned limits.
"""

import time
from collections.abc import Callable, Container, Hashable

from . import request_table
from .learned_limit import LearnedLimit
from .predict_forms import Forms
from .request_queue import Gone
from .request_table import RequestTable


class WaitingTables:
    """At most `most` requests, and as many in a run. Their forms are among `forms`; `limit_of`: of the rows of one run
    of a family.
    """

    def __init__(
        self,
        forms: Forms,
        limit_of: Callable[[Hashable], LearnedLimit],
        most: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._forms = forms
        self._limit_of = limit_of
        self._most = most
        self._clock_ns = clock_ns
        self._tables: list[RequestTable] = []
        self._count = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._count

    def offer(self, raw: bytes, peer: bytes, frontend: int, now_ns: int, apart: Container[Hashable]) -> bool:
        """Take messages of several requests, which came at `now_ns`, as a table, if all of them may share a run and
        there is room. `apart`: families that are not to share runs.
        """
        if self._count + request_table.count_of(raw) > self._most:
            return False
        began_ns = self._clock_ns()
        found = request_table.find(raw, self._forms)
        if found is None or found.place.family in apart:
            return False
        table = RequestTable(found, peer, frontend, now_ns)
        table.read_ns = self._clock_ns() - began_ns
        self._tables.append(table)
        self._count += len(table)
        return True

    def take(self) -> list[RequestTable]:
        """For one run: of the key of the oldest, in their order, up to the first that does not fit into the rows that
        its family may have; at least one request.
        """
        first, now_ns = self._tables[0], self._clock_ns()
        rows, requests = self._limit_of(first.place.family).rows, self._most
        taken: list[RequestTable] = []
        left: list[RequestTable] = []
        for table in self._tables:
            fit = 0
            if requests and table.place.key == first.place.key:
                fit = min(len(table), max(rows // table.place.rows, 0 if taken else 1), requests)
                rows -= fit * table.place.rows
                requests = requests - fit if fit == len(table) else 0
            part, rest = table.split(fit) if 0 < fit < len(table) else (table, None)
            if not fit:
                left.append(table)
                continue
            part.taken_ns = now_ns
            taken.append(part)
            if rest is not None:
                left.append(rest)
        self._keep(left)
        return taken

    def take_expired(self, now_ns: int) -> list[RequestTable]:
        """Those requests whose deadlines have passed."""
        if not any(table.earliest_ns < now_ns for table in self._tables):
            return []
        return self._take(lambda table: table.parted(table.expired(now_ns)))

    def take_family(self, family: Hashable) -> list[RequestTable]:
        """All requests of a family."""
        taken = [table for table in self._tables if table.place.family == family]
        self._keep([table for table in self._tables if table.place.family != family])
        return taken

    def forget(self, gone: Gone) -> None:
        """Drop the requests that nobody awaits any more."""
        self._take(lambda table: table.parted(table.gone(gone)))

    def due_ns(self) -> int | None:
        """When the oldest came; None while none waits."""
        return self._tables[0].came_ns if self._tables else None

    def _take(self, parted: Callable[[RequestTable], tuple[RequestTable, RequestTable]]) -> list[RequestTable]:
        both = [parted(table) for table in self._tables]
        self._keep([rest for _, rest in both if len(rest)])
        return [taken for taken, _ in both if len(taken)]

    def _keep(self, tables: list[RequestTable]) -> None:
        self._tables = tables
        self._count = sum(map(len, tables))
