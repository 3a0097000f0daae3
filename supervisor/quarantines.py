"""Which requests are in quarantine, kept for frontends that come later. Pure; times are CLOCK_MONOTONIC.

A frontend finds a poison request and refuses it; here is what lets all others do so, also in the place of one that
died. Bounded, at the cost of the model that has the most.
"""

from collections.abc import Iterable

from .wire.frontend_messages import Quarantined

MAX_ENTRIES = 1000


class Quarantines:
    """The entries of the whole pool, the oldest first."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int, int, bytes], Quarantined] = {}

    def add(self, entry: Quarantined) -> None:
        key = (entry.name, entry.version, entry.size_bytes, entry.fingerprint)
        known = self._entries.pop(key, entry)
        self._entries[key] = entry if entry.until_ns >= known.until_ns else known
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[self._first_of_the_most_entries()]

    def current(self, now_ns: int) -> Iterable[Quarantined]:
        """What is still in force; the rest is forgotten."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.until_ns > now_ns}
        return tuple(self._entries.values())

    def _first_of_the_most_entries(self) -> tuple[str, int, int, bytes]:
        """The oldest entry of the model that has the most: a model that is flooded displaces nobody else's."""
        counts: dict[str, int] = {}
        for name, *_ in self._entries:
            counts[name] = counts.get(name, 0) + 1
        fullest = max(counts, key=lambda name: counts[name])
        return next(key for key in self._entries if key[0] == fullest)
