"""Requests of one form that came together, as a table: each is a row of bytes, as it stood in the message.

What `predict_forms` does for one request is done here for all of a message at once, by numpy: the bytes that must be
the same are compared, and the values are cut out as columns, so that a request costs next to nothing beside the others.
Whatever is out of the ordinary (another form, an expired deadline, a run that fails, an answer that somebody logs)
takes the table apart again, into the requests that it is made of. Pure; a table is one thread's at a time.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code

from .plan import Array, Plan
from .predict_forms import Forms, KnownForm
from .request_queue import Request

Bytes = npt.NDArray[np.uint8]

# What stands before a payload and before a reply: the types of the fields, and where they begin.
_REQUEST: Any = np.dtype(list(data.REQUEST_ROW))
_REPLY: Any = np.dtype(list(data.REPLY_ROW))
_HEAD_BYTES: int = _REQUEST.itemsize
_REPLY_BYTES: int = _REPLY.itemsize
_PLACES: dict[str, tuple[np.dtype[Any], int, int]] = {
    name: (kind, at, at + kind.itemsize) for name, (kind, at) in _REQUEST.fields.items()
}
_ID_AT = slice(*_PLACES["request_id"][1:])
_ANSWERED_AT = slice(_REPLY.fields["request_id"][1], _REPLY.fields["code"][1])
_SIZE_BYTES = _PLACES["size"][2]
_NEVER_NS = (1 << 63) - 1


class RequestTable:
    """Requests of one frontend. `began_ns` and `planned_ns`: when reading them began and ended."""

    __slots__ = ("began_ns", "earliest_ns", "form", "frontend", "peer", "planned_ns", "rows")

    def __init__(
        self, form: KnownForm, rows: Bytes, peer: bytes, frontend: int, *, began_ns: int, planned_ns: int
    ) -> None:
        self.form = form
        self.rows = rows
        self.peer = peer
        self.frontend = frontend
        self.began_ns = began_ns
        self.planned_ns = planned_ns
        self.earliest_ns = _earliest_ns(rows)
        """The first deadline of one of them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def family(self) -> Hashable:
        """See `batching.Task`."""
        family: Hashable = self.form.common.place[0]
        return family

    @property
    def rows_each(self) -> int:
        """How many rows each request has."""
        rows: int = self.form.common.place[1]
        return rows

    @property
    def payload_bytes(self) -> int:
        """The size of each one's payload."""
        return int(self.rows.shape[1]) - _HEAD_BYTES

    def split(self, count: int) -> tuple["RequestTable", "RequestTable"]:
        """The first `count` of them, and the rest."""
        return self._of(self.rows[:count]), self._of(self.rows[count:])

    def _of(self, rows: Bytes) -> "RequestTable":
        times = {"began_ns": self.began_ns, "planned_ns": self.planned_ns}
        return RequestTable(self.form, rows, self.peer, self.frontend, **times)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A field of all headers, by its name in `data.REQUEST_ROW`."""
        return _column(self.rows, name)

    def requests(self) -> list[tuple[Request, Plan]]:
        """Each by itself, with its plan."""
        found = []
        for header, payload in data.unpack_requests(self.rows.tobytes()):
            request_id, deadline_ns, sent_ns, method, alone = header
            request = Request(
                self.peer, self.frontend, request_id, deadline_ns, sent_ns, self.began_ns, method, alone, payload
            )
            plan = self.form.read(payload)
            assert plan is not None, "a request does not have the form of its table"
            found.append((request, plan))
        return found


@dataclass(frozen=True, slots=True)
class TableReply:
    """The answers to so many requests of one frontend, all of them well: the body of a message of several replies."""

    peer: bytes
    requests: int
    body: bytes


class _Template:
    """A row with what must be the same, and a mask of where that is."""

    __slots__ = ("_bytes", "mask", "row")

    def __init__(self, form: KnownForm, size_bytes: int) -> None:
        self.row = np.zeros(_HEAD_BYTES + size_bytes, np.uint8)
        self.mask = np.zeros(_HEAD_BYTES + size_bytes, np.uint8)
        for name, value in (("size", size_bytes), ("method", Method.PREDICT), ("alone", False)):
            kind, at, _ = _PLACES[name]
            self._put(at, np.array(value, kind).tobytes())
        for begin, _, piece in form.pieces:
            self._put(_HEAD_BYTES + begin, piece)
        self._bytes = self.row.tobytes()

    def _put(self, at: int, piece: bytes) -> None:
        self.row[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        self.mask[at : at + len(piece)] = 0xFF

    def fits(self, rows: Bytes) -> bool:
        return (rows & self.mask).tobytes() == self._bytes * len(rows)


def count_of(raw: bytes) -> int:
    """How many requests a message of several has, if they are all as long as its first; at least 1."""
    return max(1, len(raw) // (_HEAD_BYTES + int.from_bytes(raw[:_SIZE_BYTES], "little")))


def find(raw: bytes, forms: Forms) -> tuple[KnownForm, Bytes] | None:
    """The form of all requests of a message of several, and their rows; None where they do not have one, or it is not
    known yet whether they may share a run. None of them is to be executed alone.
    """
    size_bytes = int.from_bytes(raw[:_SIZE_BYTES], "little")
    count, rest = divmod(len(raw), _HEAD_BYTES + size_bytes)
    if rest or not count:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(count, -1)
    for form in forms.of_length(size_bytes):
        if form.common.place is None or form.finish_rows is None or not all(place[2] for place in form.places):
            continue
        if form.template is None:
            form.template = _Template(form, size_bytes)
        if form.template.fits(rows):
            return form, rows
    return None


def feeds_of(tables: Sequence[RequestTable]) -> dict[str, Array]:
    """What the requests of these tables, all of one form, are run with together: by tensor name, row below row."""
    rows = tables[0].rows if len(tables) == 1 else np.concatenate([table.rows for table in tables])
    feeds = {}
    for name, dtype, _, begin, shape in tables[0].form.places:
        at = _HEAD_BYTES + begin
        size = dtype.itemsize
        for length in shape:
            size *= length
        values = np.ascontiguousarray(rows[:, at : at + size]).view(dtype)
        feeds[name] = values.reshape(len(rows) * shape[0], *shape[1:])
    return feeds


def replies_of(tables: Sequence[RequestTable], outputs: Sequence[Array]) -> list[TableReply] | None:
    """The answers to each table; None where they have to be made one by one."""
    count = sum(map(len, tables))
    finish = tables[0].form.finish_rows
    assert finish is not None
    replies = finish(outputs, count, _REPLY_BYTES)
    if replies is None or replies.shape[1] - _REPLY_BYTES > data.SMALL_BYTES:
        return None
    replies[:, :_REPLY_BYTES] = _reply_head(replies.shape[1] - _REPLY_BYTES)
    found, start = [], 0
    for table in tables:
        own = replies[start : start + len(table)]
        own[:, _ANSWERED_AT] = table.rows[:, _ID_AT]
        found.append(TableReply(table.peer, len(table), own.tobytes()))
        start += len(table)
    return found


@lru_cache(maxsize=256)
def _reply_head(size_bytes: int) -> Bytes:
    """What stands before a reply of so many bytes that is well, but for its request id."""
    head = np.zeros((), _REPLY)
    head["size"], head["code"] = size_bytes, Code.OK
    return np.frombuffer(head.tobytes(), np.uint8)


def _column(rows: Bytes, name: str) -> npt.NDArray[Any]:
    kind, begin, end = _PLACES[name]
    found: npt.NDArray[Any] = np.ascontiguousarray(rows[:, begin:end]).view(kind)[:, 0]
    return found


def _earliest_ns(rows: Bytes) -> int:
    deadlines = [each for each in _column(rows, "deadline_ns").tolist() if each != data.NO_DEADLINE_NS]
    return min(deadlines, default=_NEVER_NS)
