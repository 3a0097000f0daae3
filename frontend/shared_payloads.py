"""Large payloads of this frontend through shared memory: requests lent to workers, answers copied out. Event loop.

The requests lie in the frontend's own arena, the answers in one of each worker (`wire.arena`). A request's payload
stays with the core as it came; what is lent is a copy, which a worker can read and not change, and a retry makes
another. A lent block is free again when its worker says so or is dead. An answer is copied once, into the bytes that
the client gets, and only then looked at: whatever the worker writes later changes nothing.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from modelpool.supervisor.wire import arena, data, heap, sockets
from modelpool.supervisor.wire.arena import Arena, Block, Reader
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.parts import Payload, pieces_of
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code, InvalidArgument

from . import tensor_place

log = logging.getLogger(__name__)

_LENT_BYTES = arena.REQUEST_BYTES

OnMessage = Callable[[list[bytes]], None]


class Frames(Protocol):
    """The socket to one worker; else as `Link`."""

    def send(self, *frames: bytes) -> bool: ...

    def finish(self, on_finished: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


class SharedMemory:
    """The frontend's arena, and what of it is lent to whom. Without an arena it lends nothing."""

    def __init__(self, folder: Path, incarnation: Incarnation) -> None:
        self._folder = folder
        self._arena = Arena.open(sockets.arena(folder, Peer.FRONTEND, incarnation))
        self._lent: dict[Incarnation, dict[int, Block]] = {}
        self.links: set[SharedLink] = set()
        """Those that are open."""

    def lend(self, worker: Incarnation, request_id: int, payload: Payload) -> bytes | None:
        """A reference to a copy of the payload; None when there is no room."""
        if self._arena is None:
            return None
        block = self._arena.put(pieces_of(payload), tensor_place.find(payload))
        if block is None:
            return None
        self._lent.setdefault(worker, {})[request_id] = block
        return block.reference

    def returned(self, worker: Incarnation, request_ids: Sequence[int]) -> None:
        """This worker reads them no more."""
        lent = self._lent.get(worker, {})
        for request_id in request_ids:
            block = lent.pop(request_id, None)
            if block is not None and self._arena is not None:
                self._arena.free(block)

    def take_back(self, worker: Incarnation) -> None:
        """This worker is dead."""
        self.returned(worker, list(self._lent.get(worker, ())))
        self._lent.pop(worker, None)

    def trim(self) -> None:
        """Called once a second: give back what is not used, here and at the workers."""
        for link in self.links:
            link.give_back()
        if self._arena is not None and self._arena.trim():
            heap.trim()

    def answers_of(self, worker: Incarnation) -> Reader | None:
        """The worker's arena; opened while it lives, it can be read when it is dead."""
        return Reader.open(sockets.arena(self._folder, Peer.WORKER, worker))


class SharedLink:
    """A `Link` that sends large payloads through shared memory, by the link that `connect` makes."""

    def __init__(
        self,
        memory: SharedMemory,
        worker: Incarnation,
        connect: Callable[[OnMessage], Frames],
        on_message: OnMessage,
    ) -> None:
        """Raises what `connect` raises."""
        self._memory = memory
        self._worker = worker
        self._on_message = on_message
        self._unreturned: list[int] = []
        self._link = connect(self._received)
        self._answers = memory.answers_of(worker)
        memory.links.add(self)

    def send(self, head: bytes, payload: Payload) -> bool:
        """See Link."""
        if len(payload) < _LENT_BYTES:
            return self._link.send(head, payload if isinstance(payload, bytes) else bytes(payload))
        request_id = data.request_id_of(head)
        reference = self._memory.lend(self._worker, request_id, payload)
        if reference is None:
            return self._link.send(head, bytes(payload))
        sent = self._link.send(head, b"", reference)
        if not sent:
            self._memory.returned(self._worker, (request_id,))
        return sent

    def finish(self, on_finished: Callable[[], None]) -> None:
        self._link.finish(on_finished)

    def close(self) -> None:
        self._memory.links.discard(self)
        self._link.close()
        if self._answers is not None:
            self._answers.close()
            self._answers = None

    def _received(self, frames: list[bytes]) -> None:
        if len(frames) == 3:
            frames = self._fetched(*frames)
        elif len(frames) == 1:
            self._take_back(frames[0])
            return
        self._on_message(frames)

    def _take_back(self, frame: bytes) -> None:
        try:
            self._memory.returned(self._worker, data.unpack_returned(frame))
        except InvalidArgument as error:
            log.warning("ignored a malformed message %s", fields(incarnation=self._worker, error=error.message))

    def _fetched(self, head: bytes, _: bytes, reference: bytes) -> list[bytes]:
        """The message with the payload that it refers to, or with an error in its place."""
        try:
            request_id = data.unpack_reply(head).request_id
        except InvalidArgument:
            return [head, reference]  # for the core to ignore, and to say so
        try:
            if self._answers is None:
                self._answers = self._memory.answers_of(self._worker)
            if self._answers is None:
                raise InvalidArgument("it cannot be opened")
            payload = self._answers.read(reference)
        except (InvalidArgument, OSError, MemoryError) as error:
            text = f"The answer cannot be read from the worker's shared memory: {error}"
            log.error("answer lost %s", fields(incarnation=self._worker, request=request_id, error=error))
            head, payload = data.pack_reply(request_id, Code.INTERNAL), text.encode()
        self._unreturned.append(request_id)
        self.give_back()
        return [head, payload]

    def give_back(self) -> None:
        """Tell the worker of what has been copied; where its queue is full, the rest later."""
        while self._unreturned and self._link.send(data.pack_return(self._unreturned[-1]), b""):
            self._unreturned.pop()
