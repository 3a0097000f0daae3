"""Predict requests that differ from earlier ones in nothing but their numbers: their plans, without reading them again.

Clients send one message over and over with other values in it. Of one that was read, the bytes around the values are
kept. A request as long, with the same bytes at the same places, is read by comparing them. That holds for values that
are fed as they lie in the payload: whoever reads those looks at none of them, so the bytes around them decide alone how
a request is read, and whether it is taken. All others are read each time. Pure; main thread, but a form that is known
never changes and may be used by any.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .plan import Array, Form, Plan

# Lengths of payloads that are remembered, and requests of one length that differ in more than their numbers, such as in
# the order of their inputs. Requests that do not repeat are not looked at more closely for ever.
_LENGTHS = 64
_FORMS = 8
_TRIES = 64
# Bytes around the values that are kept of one form at the most.
_KEPT_BYTES = 4096

Buffer = Any  # bytes or a memoryview of bytes


class Fed(NamedTuple):
    """A tensor that is fed as it lies in the payload, from `begin` on."""

    name: str
    dtype: Any
    size: int
    begin: int
    shape: tuple[int, ...]


class KnownForm:
    """`pieces`: what has to be the same, and where. `common` is what its plans have in common; the others are as a Plan
    has them.
    """

    __slots__ = ("_plan", "common", "fed", "fetches", "finish", "finish_rows", "pieces", "signatures")

    def __init__(
        self,
        pieces: Sequence[tuple[int, int, bytes]],
        fed: Sequence[Fed],
        plan: Plan,
    ) -> None:
        self.pieces = pieces
        self.fed = fed
        self.fetches = plan.fetches
        self.signatures = plan.signatures
        self.finish = plan.finish
        self.finish_rows = plan.finish_rows
        self.common = Form()
        self._plan = (plan.fetches, plan.finish, plan.signatures, plan.finish_rows, self.common)

    def read(self, payload: Buffer) -> Plan | None:
        """The plan; None for a payload of another form, but as long."""
        feeds = self.feeds(payload)
        return None if feeds is None else self.plan(feeds)

    def plan(self, feeds: dict[str, Array]) -> Plan:
        """That of a payload with these feeds."""
        return Plan(feeds, *self._plan)

    def feeds(self, payload: Buffer) -> dict[str, Array] | None:
        """Those of the plan; None likewise."""
        for begin, end, piece in self.pieces:
            if payload[begin:end] != piece:
                return None
        feeds = {}
        for name, dtype, size, begin, shape in self.fed:
            array = np.frombuffer(payload, dtype, size, begin)
            feeds[name] = array if len(shape) == 1 else array.reshape(shape)
        return feeds


class _OfLength:
    __slots__ = ("forms", "tries")

    def __init__(self) -> None:
        self.forms: list[KnownForm] = []
        self.tries = 0


class Forms:
    """What is known of one model's requests."""

    def __init__(self) -> None:
        self._known: dict[int, _OfLength] = {}

    def read(self, payload: Buffer) -> Plan | None:
        """The plan of a payload that has a known form; None for any other."""
        found = self.find(payload)
        return None if found is None else found[0].plan(found[1])

    def find(self, payload: Buffer) -> tuple[KnownForm, dict[str, Array]] | None:
        """The form of a payload, and the feeds of its plan; None where it is not known."""
        known = self._known.get(len(payload))
        if known is not None:
            for form in known.forms:
                feeds = form.feeds(payload)
                if feeds is not None:
                    return form, feeds
        return None

    def of_length(self, size_bytes: int) -> Sequence[KnownForm]:
        """Those of payloads of so many bytes, those that were learned last first."""
        known = self._known.get(size_bytes)
        return () if known is None else known.forms

    def learn(self, payload: Buffer, plan: Plan) -> None:
        """`plan` was read of this payload, which had no known form. Nothing is kept of the first of a length."""
        known = self._known.get(len(payload))
        if known is None:
            if len(self._known) >= _LENGTHS:
                self._known.clear()
            self._known[len(payload)] = _OfLength()
        elif known.tries < _TRIES:
            known.tries += 1
            form = _form_of(payload, plan)
            if form is not None:
                known.forms.insert(0, form)
                del known.forms[_FORMS:]


def _form_of(payload: Buffer, plan: Plan) -> KnownForm | None:
    """None where something is fed that does not lie in the payload as it is, or much lies around what is fed."""
    if plan.feeds is None:
        return None
    origin = _address(np.frombuffer(payload, np.uint8))
    fed = []
    for name, array in plan.feeds.items():
        begin = _address(array) - origin
        if not array.flags.c_contiguous or not 0 <= begin <= len(payload) - array.nbytes:
            return None
        fed.append(Fed(name, array.dtype, array.size, begin, array.shape))
    ends = [(begin, begin + plan.feeds[name].nbytes) for name, _, _, begin, _ in fed]
    around, at = [], 0
    for begin, end in [*sorted(ends), (len(payload), 0)]:
        if begin > at:
            around.append((at, begin))
        at = end
    # Before anything is copied: values beyond the shape's are not fed, and may be all of a large payload.
    if sum(end - begin for begin, end in around) > _KEPT_BYTES:
        return None
    return KnownForm([(begin, end, bytes(payload[begin:end])) for begin, end in around], fed, plan)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
