"""What each worker was last told of its request log, so that a changed logging_config reaches those that serve. Pure.

A worker starts with what its specification says; a message can reach it only once it has said that it is ready.
"""

from collections.abc import Callable

from .wire.ids import Incarnation
from .wire.worker_spec import RequestLog


class RequestLogs:
    """The workers that live, each with its model and what it was told."""

    def __init__(self) -> None:
        self._told: dict[Incarnation, tuple[str, RequestLog | None]] = {}
        self._ready: set[Incarnation] = set()

    def started(self, incarnation: Incarnation, model: str, request_log: RequestLog | None) -> None:
        self._told[incarnation] = (model, request_log)

    def ready(self, incarnation: Incarnation) -> None:
        if incarnation in self._told:
            self._ready.add(incarnation)

    def exited(self, incarnation: Incarnation) -> None:
        self._told.pop(incarnation, None)
        self._ready.discard(incarnation)

    def due(self, wanted: Callable[[str], RequestLog | None]) -> list[tuple[Incarnation, RequestLog | None]]:
        """Whom to tell what, by what is `wanted` of a model; they count as told from now on."""
        due = [
            (incarnation, wanted(model))
            for incarnation, (model, told) in self._told.items()
            if incarnation in self._ready and wanted(model) != told
        ]
        for incarnation, request_log in due:
            self._told[incarnation] = (self._told[incarnation][0], request_log)
        return due
