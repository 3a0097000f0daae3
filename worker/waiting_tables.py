"""Tables of requests that wait for a run: what a batcher is for single ones. Pure; main thread of the worker.

It takes what waits, oldest first, as `batching.AutoBatcher` does, and with the same learned limits.
"""

import time
from collections import deque
from collections.abc import Callable, Container, Hashable

from . import request_table
from .learned_limit import LearnedLimit
from .predict_forms import Forms
from .request_table import RequestTable


class WaitingTables:
    """At most `most` requests, whose forms are among `forms`. `limit_of`: of the rows of one run of a family."""

    def __init__(self, forms: Forms, limit_of: Callable[[Hashable], LearnedLimit], most: int) -> None:
        self._forms = forms
        self._limit_of = limit_of
        self._most = most
        self._tables: deque[RequestTable] = deque()
        self._count = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._count

    def offer(self, raw: bytes, peer: bytes, frontend: int, now_ns: int, apart: Container[Hashable]) -> bool:
        """Take a message of several requests as a table, if all of them may share a run, and there is room.

        `now_ns`: when reading it began; `apart`: families that are not to share runs.
        """
        if self._count >= self._most:
            return False
        found = request_table.find(raw, self._forms)
        if found is None or found[0].common.place[0] in apart:
            return False
        table = RequestTable(*found, peer, frontend, began_ns=now_ns, planned_ns=time.monotonic_ns())
        self._tables.append(table)
        self._count += len(table)
        return True

    def take(self) -> list[RequestTable]:
        """For one run: of the form of the oldest, as many as its family may have; at least one request."""
        tables = self._tables
        form = tables[0].form
        room = max(1, self._limit_of(tables[0].family).rows // tables[0].rows_each)
        taken = []
        while room > 0 and tables and tables[0].form is form:
            table = tables.popleft()
            if len(table) > room:
                table, rest = table.split(room)
                tables.appendleft(rest)
            taken.append(table)
            room -= len(table)
        self._count -= sum(map(len, taken))
        return taken

    def take_all(self) -> list[RequestTable]:
        """All that wait: they are to be looked at one by one."""
        taken, self._tables = list(self._tables), deque()
        self._count = 0
        return taken

    def expired(self, now_ns: int) -> bool:
        """Whether the deadline of any of them has passed."""
        return any(table.earliest_ns < now_ns for table in self._tables)

    def due_ns(self) -> int | None:
        """When the oldest began to wait; None while none does."""
        return self._tables[0].began_ns if self._tables else None
