"""Warmup recordings under way: who asked, and which worker records. Pure; the pool carries the messages."""

from dataclasses import dataclass, field

from .wire.ids import Incarnation
from .wire.status import Code
from .wire.worker_messages import WarmupRecorded


@dataclass(slots=True)
class Recordings:
    """Open recordings by token; a worker runs at most one, and refuses others itself."""

    _open: dict[int, tuple[Incarnation, Incarnation]] = field(default_factory=dict)

    def begin(self, token: int, client: Incarnation, worker: Incarnation) -> None:
        self._open[token] = (client, worker)

    def ended(self, token: int) -> Incarnation | None:
        """The client to tell that a recording has ended; None when nobody asked for it."""
        known = self._open.pop(token, None)
        return known[0] if known is not None else None

    def died(self, worker: Incarnation) -> list[tuple[Incarnation, WarmupRecorded]]:
        """What to tell whom when a worker is gone in the middle of its recording."""
        lost = [(token, client) for token, (client, recorder) in self._open.items() if recorder == worker]
        for token, _ in lost:
            del self._open[token]
        text = "The worker died while it recorded"
        return [(client, WarmupRecorded(token, Code.UNAVAILABLE, text, 0)) for token, client in lost]
