"""What a request asks of the model, and what becomes of the model's answer: the three steps of every call, apart.

Parsing ends in a Plan; whoever executes it may put several plans into one run of the model. Pure; any thread.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from modelpool.supervisor.wire.parts import Payload

Array = np.ndarray


class Model(Protocol):
    """What is needed of a loaded model."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """SignatureDef by key."""

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Tensor names to arrays in, fetched tensors out. Raises PoolError."""


class Place(NamedTuple):
    """Where a plan belongs that may share a run: see `batching.Task`."""

    family: Hashable
    rows: int
    key: Hashable


@dataclass(slots=True, eq=False)
class Form:
    """What plans have in common that differ in nothing but the values of their feeds. What follows from that is found
    out once: `place` by whoever puts plans together, None until it is known; `table` by whoever reads many at once.
    """

    place: Place | None = None
    table: Any = None
    large_reply: bool = False
    """Whether there was a reply that is no small message (`data.SMALL_BYTES`); see `straight_runs`."""


@dataclass(slots=True, eq=False)
class Plan:
    """One run of the model: `feeds` by tensor name, `fetches`, and `finish`, which makes the reply of the outputs.

    `feeds` is None when there is nothing to run: `finish` then takes no outputs. `finish` raises PoolError. Not frozen,
    because one is made for each request. `form`: see Form; None for a plan that nothing is known of.
    """

    feeds: Mapping[str, Array] | None
    fetches: Sequence[str]
    finish: Callable[[list[Array]], Payload]
    signatures: tuple[str, ...] = ()
    """The keys of those that it runs."""
    finish_rows: "FinishRows | None" = None
    form: Form | None = None

    def answer(self, model: Model) -> bytes:
        """Run it by itself; the reply. Raises PoolError."""
        return bytes(self.finish([] if self.feeds is None else model.run(self.feeds, self.fetches)))


FinishRows = Callable[[Sequence[Array], int, int], np.ndarray | None]
"""`finish` for several plans of one form that were run together: of the outputs, how many plans they are of, and how
many bytes to leave free before each reply, [plans, those and a reply's] bytes; None where they cannot be made so."""
Planner = Callable[[bytes], Plan]
