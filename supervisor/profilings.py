"""Profiles that are being taken: who asked, which worker is traced, and where its file may go. Pure but for `realpath`.

Over gRPC, TensorFlow Serving writes wherever a client says. Here it is only below --profiler_dir; the command line,
whose socket is the operator's own, may write anywhere.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from .wire.client_messages import ProfileOf
from .wire.ids import Incarnation
from .wire.sockets import Peer
from .wire.status import Code, FailedPrecondition, InvalidArgument, Status, StatusError
from .wire.worker_messages import Profile, Profiled

MAX_DURATION_S = 60.0
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom to answer, with which token of its own."""

    peer: Peer
    incarnation: Incarnation
    token: int


@dataclass(frozen=True, slots=True)
class _Open:
    asker: Asker
    worker: Incarnation
    session: str


@dataclass(slots=True)
class Profilings:
    """Open profiles by a token of ours; a worker takes one at a time, and refuses others itself.

    `profiler_dir`: what --profiler_dir says. `hostname` is part of the file's name where the asker gives none.
    """

    profiler_dir: str
    hostname: str
    wall: Callable[[], float] = time.time
    _open: dict[int, _Open] = field(default_factory=dict)
    _last_token: int = 0

    def order(self, peer: Peer, wanted: ProfileOf) -> Profile:
        """What to tell the worker; its token is the asker's still. Raises PoolError."""
        asked = wanted.order
        if not 0 <= asked.duration_s <= MAX_DURATION_S:
            raise InvalidArgument(f"duration: expected 0 to {MAX_DURATION_S:g} s, got {asked.duration_s:g} s")
        if not asked.root.startswith("/"):
            raise InvalidArgument(f"repository_root: expected an absolute path, got {asked.root!r}")
        if peer is not Peer.CLIENT:
            self._check_allowed(asked.root)
        session = asked.session or time.strftime("%Y_%m_%d_%H_%M_%S", time.localtime(self.wall()))
        traced = wanted.model if wanted.version is None else f"{wanted.model}.{wanted.version}"
        host = asked.host or f"{self.hostname}.{quote(traced, safe='')}"
        _check_name("session_id", session)
        _check_name("host_name", host)
        return replace(asked, session=session, host=host.replace(":", "_"))

    def begin(self, asker: Asker, worker: Incarnation, order: Profile) -> Profile:
        """The order with our own token, by which its answer finds the asker."""
        self._last_token += 1
        self._open[self._last_token] = _Open(asker, worker, order.session)
        return replace(order, token=self._last_token)

    def ended(self, answer: Profiled) -> tuple[Asker, Profiled] | None:
        """Whom to tell what of an answer; None when nobody asked for it."""
        known = self._open.pop(answer.token, None)
        return None if known is None else (known.asker, replace(answer, token=known.asker.token))

    def died(self, worker: Incarnation) -> list[tuple[Asker, Profiled]]:
        """What to tell whom when a worker is gone while it was traced."""
        lost = [token for token, each in self._open.items() if each.worker == worker]
        text = "The worker died while its profile was taken"
        return [
            (asker, Profiled(asker.token, Code.UNAVAILABLE, text, "", False))
            for asker in (self._open.pop(token).asker for token in lost)
        ]

    def workers(self, session: str) -> list[Incarnation]:
        """Those that are traced for this session."""
        return [each.worker for each in self._open.values() if each.session == session]

    def _check_allowed(self, root: str) -> None:
        if not self.profiler_dir:
            raise FailedPrecondition(
                "profiles over gRPC are off: start the server with --profiler_dir=FOLDER, in or below which "
                "repository_root must be, or use `modelpool profile` on its host"
            )
        allowed = os.path.realpath(self.profiler_dir)
        if os.path.commonpath((allowed, os.path.realpath(root))) != allowed:
            text = f"repository_root: expected a folder in or below {allowed}, got {root!r}"
            raise StatusError(Status(Code.PERMISSION_DENIED, text))


def _check_name(field_name: str, name: str) -> None:
    """Raises InvalidArgument for what is not the name of one file."""
    if "/" in name or "\0" in name or name.startswith(".") or len(name.encode()) > _MAX_NAME_BYTES:
        raise InvalidArgument(f"{field_name}: expected a name without '/' that does not begin with '.', got {name!r}")
