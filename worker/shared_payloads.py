"""Large payloads of this worker through shared memory: requests read where they lie, answers lent. Main thread.

A request's payload is looked at in the frontend's arena (`wire.arena`), which this process cannot write. Whoever uses a
part of it, TensorFlow included, refers to the same array; the frontend gets its block back when the last reference is
gone, be the request answered, cancelled, or forgotten. A thread that drops it does nothing but note it. TensorFlow may
keep one until it is called again, so it is asked to let go of it now and then while there are any.
"""

import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelpool.supervisor.wire import heap, sockets
from modelpool.supervisor.wire.arena import Arena, Block, Reader
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.parts import Payload, pieces_of
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Unavailable


class SharedFrame:
    """A payload in shared memory, in the place of ZeroMQ's frame."""

    __slots__ = ("_octets",)

    def __init__(self, octets: npt.NDArray[np.uint8]) -> None:
        self._octets = octets

    def __len__(self) -> int:
        return len(self._octets)

    @property
    def buffer(self) -> memoryview:
        """The payload where it lies."""
        return self._octets.data

    @property
    def bytes(self) -> bytes:
        """A copy."""
        return self._octets.tobytes()


def _nobody_keeps() -> None:
    """There is nothing to let go of."""


class SharedPayloads:
    """`folder`: the pool's runtime directory; None: nothing is shared. `let_go` has the model drop what it keeps of
    requests whose runs are over; it may be called at any time.
    """

    def __init__(
        self, folder: Path | None, incarnation: Incarnation, let_go: Callable[[], None] = _nobody_keeps
    ) -> None:
        self._folder = folder
        self._let_go = let_go
        self._arena = Arena.open(sockets.arena(folder, Peer.WORKER, incarnation)) if folder is not None else None
        self._frontends: dict[Incarnation, Reader] = {}
        self._unused: deque[tuple[bytes, int]] = deque()
        self._untold = 0
        """Requests whose payloads are used, or are not but their frontends have not been told."""
        self._lent: dict[Incarnation, dict[int, Block]] = {}

    # -- requests ------------------------------------------------------------------------------------------------

    def request(self, peer: bytes, frontend: Incarnation, request_id: int, reference: bytes) -> SharedFrame:
        """The payload of a request. Raises InvalidArgument for a wrong reference, Unavailable when it cannot be had."""
        try:
            mapped, start, size_bytes = self._reader(frontend).view(reference)
            octets = np.frombuffer(mapped, np.uint8, size_bytes, start)
        except (OSError, ValueError) as error:
            raise Unavailable(f"The request cannot be read from the frontend's shared memory: {error}") from error
        self._untold += 1
        weakref.finalize(octets, self._unused.append, (peer, request_id)).atexit = False
        return SharedFrame(octets)

    def _reader(self, frontend: Incarnation) -> Reader:
        known = self._frontends.get(frontend)
        if known is None:
            opened = None if self._folder is None else Reader.open(sockets.arena(self._folder, Peer.FRONTEND, frontend))
            if opened is None:
                raise Unavailable(f"The shared memory of frontend {frontend} cannot be opened")
            known = self._frontends[frontend] = opened
        return known

    def unused(self) -> dict[bytes, list[int]]:
        """By frontend the requests whose payloads nobody uses any more, to be told once."""
        found: dict[bytes, list[int]] = defaultdict(list)
        while self._unused:
            peer, request_id = self._unused.popleft()
            self._untold -= 1
            found[peer].append(request_id)
        return found

    def untold(self, peer: bytes, request_ids: Iterable[int]) -> None:
        """Of these `unused` its frontend could not be told yet."""
        for request_id in request_ids:
            self.refused(peer, request_id)

    def refused(self, peer: bytes, request_id: int) -> None:
        """A request whose reference is wrong: its frontend gets the block back as well."""
        self._untold += 1
        self._unused.append((peer, request_id))

    # -- answers -------------------------------------------------------------------------------------------------

    def lend(self, frontend: Incarnation, request_id: int, reply: Payload) -> bytes | None:
        """A reference to a copy of the answer; None when there is no room."""
        block = self._arena.put(pieces_of(reply)) if self._arena is not None else None
        if block is None:
            return None
        self._lent.setdefault(frontend, {})[request_id] = block
        return block.reference

    def returned(self, frontend: Incarnation, request_id: int) -> None:
        """The frontend has copied this answer."""
        block = self._lent.get(frontend, {}).pop(request_id, None)
        if block is not None and self._arena is not None:
            self._arena.free(block)

    def drop_frontend(self, frontend: Incarnation) -> None:
        """It is dead."""
        for request_id in list(self._lent.get(frontend, ())):
            self.returned(frontend, request_id)
        self._lent.pop(frontend, None)
        reader = self._frontends.pop(frontend, None)
        if reader is not None:
            reader.close()

    # -- memory --------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do a while later: nothing to `trim`, and no `unused` to come or to be told."""
        return not self._untold and (self._arena is None or self._arena.idle)

    def trim(self) -> None:
        """Called now and then: give back what is not used. There may be `unused` to be told afterwards."""
        if self._untold > len(self._unused):
            self._let_go()
        if self._arena is not None and self._arena.trim():
            heap.trim()
