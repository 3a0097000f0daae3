"""ZeroMQ sockets as this project uses them: identities, paths, finite queues, no lingering. Any process.

Sends never block: a full queue is an answer to the caller, not a wait. Each socket has one owner thread.
"""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import zmq

from .ids import Incarnation
from .status import InvalidArgument
from .unix_socket import MAX_PATH_BYTES

# Bounds of one pipe, in messages. Control messages are small and rare. A message of the data plane has one request or
# answer, or up to `data.MOST_TOGETHER` small ones; how many may wait is bounded elsewhere, by `max_queued_requests`.
CONTROL_HWM = 10_000
DATA_HWM = 1_000

_CONTROL_NAME = "control"
_DATA_PREFIX = "w"
_ENVOY_ADMIN_PREFIX = "a"
_ENVOY_CONFIG_PREFIX = "c"
_ENVOY_DRAIN_PREFIX = "d"
_SOCKET = re.compile(rf"[{_DATA_PREFIX}{_ENVOY_ADMIN_PREFIX}][0-9]+", re.ASCII)
_ENVOY_FILE = re.compile(rf"{_ENVOY_CONFIG_PREFIX}[0-9]+\.json|{_ENVOY_DRAIN_PREFIX}[0-9]+(?:\.new)?", re.ASCII)
_ARENA_PREFIX = "m"
_ARENA = re.compile(rf"{_ARENA_PREFIX}[wf][0-9]+", re.ASCII)


class Peer(StrEnum):
    """Who speaks on the supervisor's control socket; the first half of a ZeroMQ identity."""

    WORKER = "worker"
    FRONTEND = "frontend"
    CLIENT = "client"


def identity(peer: Peer, incarnation: Incarnation) -> bytes:
    """The ZeroMQ identity of a process. Never reused: ZeroMQ ignores a second live peer of one name."""
    return f"{peer}:{incarnation}".encode()


def parse_identity(raw: bytes) -> tuple[Peer, Incarnation]:
    """Raises InvalidArgument for an identity that `identity` did not make."""
    try:
        peer, _, number = raw.decode("ascii").partition(":")
        return Peer(peer), Incarnation(int(number))
    except ValueError as error:
        raise InvalidArgument(f"peer identity: expected '<peer>:<incarnation>', got {raw!r}") from error


def control_endpoint(runtime_dir: Path) -> str:
    return ipc_endpoint(runtime_dir / _CONTROL_NAME)


def data_endpoint(runtime_dir: Path, incarnation: Incarnation) -> str:
    return ipc_endpoint(runtime_dir / f"{_DATA_PREFIX}{incarnation}")


def envoy_admin(runtime_dir: Path, frontend: Incarnation) -> Path:
    """The socket by which a frontend that is an Envoy gives orders to itself."""
    return runtime_dir / f"{_ENVOY_ADMIN_PREFIX}{frontend}"


def envoy_config(runtime_dir: Path, frontend: Incarnation) -> Path:
    """The file with the configuration of a frontend that becomes an Envoy, there until Envoy has read it."""
    return runtime_dir / f"{_ENVOY_CONFIG_PREFIX}{frontend}.json"


def envoy_drain(runtime_dir: Path, frontend: Incarnation) -> Path:
    """The file with a number that a frontend which is an Envoy watches: 0, or 1 to send all clients away."""
    return runtime_dir / f"{_ENVOY_DRAIN_PREFIX}{frontend}"


def envoy_files(runtime_dir: Path, frontend: Incarnation) -> tuple[Path, ...]:
    """What may be left of a frontend that was an Envoy."""
    drain = envoy_drain(runtime_dir, frontend)
    return (envoy_admin(runtime_dir, frontend), envoy_config(runtime_dir, frontend), drain, drain.with_suffix(".new"))


def arena(runtime_dir: Path, writer: Peer, incarnation: Incarnation) -> Path:
    """The link to the shared memory that a worker or a frontend writes."""
    return runtime_dir / f"{_ARENA_PREFIX}{writer[0]}{incarnation}"


def folder(endpoint: str) -> Path:
    """The runtime directory that an endpoint lies in."""
    return Path(endpoint.removeprefix("ipc://")).parent


def is_socket_name(name: str) -> bool:
    """Whether a file of this name in a runtime directory is one of our sockets."""
    return name == _CONTROL_NAME or _SOCKET.fullmatch(name) is not None


def is_envoy_file(name: str) -> bool:
    """Whether a file of this name in a runtime directory is one of an Envoy's."""
    return _ENVOY_FILE.fullmatch(name) is not None


def is_arena(name: str) -> bool:
    """Whether a link of this name in a runtime directory leads to shared memory of ours."""
    return _ARENA.fullmatch(name) is not None


def ipc_endpoint(path: Path) -> str:
    """`ipc://` address of a socket file. Raises InvalidArgument when the path does not fit a unix socket."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidArgument(
            f"runtime_dir: socket paths below it must fit {MAX_PATH_BYTES} bytes, got {str(path)!r}; "
            "choose a shorter --runtime_dir"
        )
    return f"ipc://{path}"


def configure_router(socket: "zmq.Socket[Any]", hwm: int) -> None:
    """A binding ROUTER: refuses to send to an unknown or full peer (EHOSTUNREACH, EAGAIN) instead of dropping."""
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    _configure(socket, hwm)


def configure_dealer(socket: "zmq.Socket[Any]", name: bytes, hwm: int) -> None:
    socket.setsockopt(zmq.IDENTITY, name)
    _configure(socket, hwm)


def _configure(socket: "zmq.Socket[Any]", hwm: int) -> None:
    socket.setsockopt(zmq.SNDHWM, hwm)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.LINGER, 0)
