"""Names of things: servables, slots and incarnations. Pure data, used in every process.

A *slot* is a place (servable x device x replica); an *incarnation* is one process that fills it. Whatever
names a worker on the wire names its incarnation, which one supervisor never gives out twice.
"""

from dataclasses import dataclass
from typing import NewType

Incarnation = NewType("Incarnation", int)


@dataclass(frozen=True, slots=True, order=True)
class ServableId:
    """A model name and one of its versions (TF Serving: `core/servable_id.h`)."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True, order=True)
class SlotId:
    """A place that a worker process fills: one servable on one device, `replica` counted from 0."""

    servable: ServableId
    device: str
    replica: int = 0

    def __str__(self) -> str:
        return f"{self.servable}@{self.device}#{self.replica}"
