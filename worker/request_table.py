"""Requests of one form that came together, as a table: each is a row of bytes, as it stood in the message.

What `predict_forms` does for one request is done here for all of a message at once, by numpy: the bytes that must be
the same are compared, and the values are cut out as columns, so that a request costs next to nothing beside the others.
Whatever is out of the ordinary (another form, an expired deadline, a run that fails, an answer that somebody logs)
takes a table apart again, into the requests that it is made of. Pure; a table is one thread's at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code

from .plan import Array, Place, Plan
from .predict_forms import Forms, KnownForm
from .request_queue import Gone, Request

Bytes = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.bool_]

# What stands before a payload and before a reply: the types of the fields, and where they begin and end.
_REQUEST: Any = np.dtype(list(data.REQUEST_ROW))
_REPLY: Any = np.dtype(list(data.REPLY_ROW))
_HEAD_BYTES: int = _REQUEST.itemsize
_REPLY_BYTES: int = _REPLY.itemsize
_FIELDS: dict[str, tuple[np.dtype[Any], int, int]] = {
    name: (kind, at, at + kind.itemsize) for name, (kind, at) in _REQUEST.fields.items()
}
_ID_AT = slice(*_FIELDS["request_id"][1:])
_ANSWERED_AT = slice(_REPLY.fields["request_id"][1], _REPLY.fields["code"][1])
_SIZE_BYTES = _FIELDS["size"][2]
_NEVER_NS = (1 << 63) - 1
# Replies that could not be made all at once: after so many in a row the form's requests are not read so any more.
_MISSES = 4


class FormRows:
    """What is known of the rows of one form: one with what must be the same, and a mask of where that is."""

    __slots__ = ("_mask", "_same", "form", "misses", "place")

    def __init__(self, form: KnownForm, place: Place, size_bytes: int) -> None:
        self.form = form
        self.place = place
        self.misses = 0
        """Times in a row that the replies to its requests had to be made one by one."""
        row = np.zeros(_HEAD_BYTES + size_bytes, np.uint8)
        self._mask = np.zeros_like(row)
        pieces = [(_HEAD_BYTES + begin, piece) for begin, _, piece in form.pieces]
        for name, value in (("size", size_bytes), ("method", Method.PREDICT), ("alone", False)):
            kind, at, _ = _FIELDS[name]
            pieces.append((at, np.array(value, kind).tobytes()))
        for at, piece in pieces:
            row[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            self._mask[at : at + len(piece)] = 0xFF
        self._same = row.tobytes()

    def fit(self, rows: Bytes) -> bool:
        return (rows & self._mask).tobytes() == self._same * len(rows)

    @property
    def worthwhile(self) -> bool:
        return self.misses < _MISSES


@dataclass(frozen=True, slots=True)
class Found:
    """All requests of a message, [requests, bytes], and their form."""

    of: FormRows
    rows: Bytes

    @property
    def place(self) -> Place:
        return self.of.place


class RequestTable:
    """Requests of one frontend, which came at `came_ns`."""

    __slots__ = ("came_ns", "earliest_ns", "frontend", "of", "peer", "read_ns", "rows", "taken_ns")

    def __init__(self, found: Found, peer: bytes, frontend: int, came_ns: int) -> None:
        self.of = found.of
        self.rows = found.rows
        self.peer = peer
        self.frontend = frontend
        self.came_ns = came_ns
        self.read_ns = self.taken_ns = 0
        """How long reading it took, and when it was taken for a run."""
        self.earliest_ns = _earliest_ns(self.rows)
        """The first deadline of one of them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def form(self) -> KnownForm:
        return self.of.form

    @property
    def place(self) -> Place:
        return self.of.place

    @property
    def payload_bytes(self) -> int:
        """The size of each one's payload."""
        return int(self.rows.shape[1]) - _HEAD_BYTES

    def split(self, count: int) -> tuple["RequestTable", "RequestTable"]:
        """The first `count` of them, and the rest."""
        return self._of(self.rows[:count]), self._of(self.rows[count:])

    def parted(self, marks: Marks) -> tuple["RequestTable", "RequestTable"]:
        """Those that are marked, and the rest."""
        if not marks.any():
            return self._of(self.rows[:0]), self
        return self._of(self.rows[marks]), self._of(self.rows[~marks])

    def expired(self, now_ns: int) -> Marks:
        """See `Request.expired`."""
        deadlines = self.column("deadline_ns")
        marks: Marks = (deadlines != data.NO_DEADLINE_NS) & (deadlines < now_ns)
        return marks

    def gone(self, gone: Gone) -> Marks:
        """Those that it has."""
        if gone.frontend != self.frontend:
            return np.zeros(len(self), np.bool_)
        if gone.request_ids is None:
            return np.ones(len(self), np.bool_)
        ids: Marks = np.isin(self.column("request_id"), np.array(list(gone.request_ids), np.uint64))
        return ids

    def _of(self, rows: Bytes) -> "RequestTable":
        part = RequestTable(Found(self.of, rows), self.peer, self.frontend, self.came_ns)
        part.read_ns, part.taken_ns = self.read_ns, self.taken_ns
        return part

    def column(self, name: str) -> npt.NDArray[Any]:
        """A field of all headers, by its name in `data.REQUEST_ROW`."""
        return _column(self.rows, name)

    def requests(self) -> list[tuple[Request, Plan]]:
        """Each by itself, with its plan."""
        found = []
        for header, payload in data.unpack_requests(self.rows.tobytes()):
            request_id, deadline_ns, sent_ns, method, alone = header
            request = Request(
                self.peer, self.frontend, request_id, deadline_ns, sent_ns, self.came_ns, method, alone, payload
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


def count_of(raw: bytes) -> int:
    """How many requests a message of several has, if they are all as long as its first; at least 1."""
    return max(1, len(raw) // (_HEAD_BYTES + first_bytes(raw)))


def first_bytes(raw: bytes) -> int:
    """How long the payload of the first request of a message of several is."""
    return int.from_bytes(raw[:_SIZE_BYTES], "little")


def find(raw: bytes, forms: Forms) -> Found | None:
    """All requests of a message of several; None where they do not have one form, or it is not known (yet) whether
    they may share a run and be answered together. None of them is to be executed alone.
    """
    size_bytes = first_bytes(raw)
    count, rest = divmod(len(raw), _HEAD_BYTES + size_bytes)
    if rest or not count:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(count, -1)
    known = forms.of_length(size_bytes)
    for form in known:
        of = _rows_of(form, size_bytes)
        if of is None or not of.worthwhile or (len(known) > 1 and not of.fit(rows[:1])):
            continue
        return Found(of, rows) if of.fit(rows) else None
    return None


def _rows_of(form: KnownForm, size_bytes: int) -> FormRows | None:
    common = form.common
    if common.table is None:
        if common.place is None or form.finish_rows is None or not all(each.size for each in form.fed):
            return None
        common.table = FormRows(form, common.place, size_bytes)
    table: FormRows = common.table
    return table


def feeds_of(tables: Sequence[RequestTable]) -> dict[str, Array]:
    """What the requests of these tables, all of one key, are run with together: by tensor name, row below row."""
    feeds = [_feeds(table) for table in tables]
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}


def _feeds(table: RequestTable) -> dict[str, Array]:
    feeds = {}
    for name, dtype, size, begin, shape in table.form.fed:
        at = _HEAD_BYTES + begin
        values = np.ascontiguousarray(table.rows[:, at : at + size * dtype.itemsize]).view(dtype)
        feeds[name] = values.reshape(len(table) * shape[0], *shape[1:])
    return feeds


def replies_of(tables: Sequence[RequestTable], outputs: Sequence[Array]) -> list[TableReply] | None:
    """The answers to each table, of the outputs of all; None where they have to be made one by one."""
    replies, start = [], 0
    for table in tables:
        end = start + len(table) * table.place.rows
        own = outputs if len(tables) == 1 else [output[start:end] for output in outputs]
        reply = _reply(table, own)
        table.of.misses = table.of.misses + 1 if reply is None else 0
        if reply is None:
            return None
        replies.append(reply)
        start = end
    return replies


def _reply(table: RequestTable, outputs: Sequence[Array]) -> TableReply | None:
    count, finish = len(table), table.form.finish_rows
    assert finish is not None
    if sum(output.nbytes for output in outputs) > count * data.SMALL_BYTES:
        return None
    rows = finish(outputs, count, _REPLY_BYTES)
    if rows is None or rows.shape[1] - _REPLY_BYTES > data.SMALL_BYTES:
        return None
    rows[:, :_REPLY_BYTES] = _reply_head(rows.shape[1] - _REPLY_BYTES)
    rows[:, _ANSWERED_AT] = table.rows[:, _ID_AT]
    return TableReply(table.peer, count, rows.tobytes())


@lru_cache(maxsize=256)
def _reply_head(size_bytes: int) -> Bytes:
    """What stands before a reply of so many bytes that is well, but for its request id."""
    head = np.zeros((), _REPLY)
    head["size"], head["code"] = size_bytes, Code.OK
    return np.frombuffer(head.tobytes(), np.uint8)


def _column(rows: Bytes, name: str) -> npt.NDArray[Any]:
    kind, begin, end = _FIELDS[name]
    found: npt.NDArray[Any] = np.ascontiguousarray(rows[:, begin:end]).view(kind)[:, 0]
    return found


def _earliest_ns(rows: Bytes) -> int:
    deadlines = [each for each in _column(rows, "deadline_ns").tolist() if each != data.NO_DEADLINE_NS]
    return min(deadlines, default=_NEVER_NS)
