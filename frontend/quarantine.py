"""Which requests are refused because the same has killed two workers. Pure; the clock is handed in.

Kept by version: the next one may be cured. A payload is hashed only where one of its size is in quarantine.
"""

import hashlib
from collections.abc import Callable

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import Quarantined
from modelpool.supervisor.wire.ids import ServableId
from modelpool.supervisor.wire.parts import Payload, pieces_of

MAX_ENTRIES = 1000
"""Of one version; beyond, the oldest is forgotten."""
_DIGEST_BYTES = 16
_MAX_S = 1e9  # a lifetime, in a number of nanoseconds that a message can carry


def fingerprint(method: Method, payload: Payload) -> bytes:
    """What two requests have in common when they are the same."""
    digest = hashlib.blake2b(bytes((method,)), digest_size=_DIGEST_BYTES)
    for piece in pieces_of(payload):
        digest.update(piece)
    return digest.digest()


class Quarantine:
    """`clock_ns`: CLOCK_MONOTONIC."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self.versions: dict[ServableId, dict[tuple[int, bytes], int]] = {}
        """What is refused, by size and fingerprint, and until when; empty when nothing is."""

    def add(self, entry: Quarantined) -> None:
        """Refuse from now on what is the same; the later end counts."""
        if entry.until_ns <= self._clock_ns():
            return
        entries = self.versions.setdefault(ServableId(entry.name, entry.version), {})
        key = (entry.size_bytes, entry.fingerprint)
        entries[key] = max(entry.until_ns, entries.pop(key, 0))
        while len(entries) > MAX_ENTRIES:
            del entries[next(iter(entries))]

    def isolate(self, servable: ServableId, method: Method, payload: Payload, quarantine_s: float) -> Quarantined:
        """Refuse whatever is the same as this request, for so long; what the others must be told."""
        until_ns = self._clock_ns() + int(min(quarantine_s, _MAX_S) * 1e9)
        entry = Quarantined(servable.name, servable.version, fingerprint(method, payload), len(payload), until_ns)
        self.add(entry)
        return entry

    def remaining_s(self, servable: ServableId, method: Method, payload: Payload) -> float:
        """For how long such a request is still refused; 0 when it is not."""
        entries = self.versions.get(servable)
        if entries is None:
            return 0.0
        now_ns = self._clock_ns()
        for key in [key for key, until_ns in entries.items() if until_ns <= now_ns]:
            del entries[key]
        if not entries:
            del self.versions[servable]
        size_bytes = len(payload)
        if not any(size == size_bytes for size, _ in entries):
            return 0.0
        until_ns = entries.get((size_bytes, fingerprint(method, payload)), now_ns)
        return (until_ns - now_ns) / 1e9
