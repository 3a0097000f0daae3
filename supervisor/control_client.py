"""The command line's side of a running pool's control socket: questions and their answers. Used by commands only."""

import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import zmq

from . import runtime_dir
from .command_options import Options
from .wire import codec, sockets
from .wire.client_messages import HurtReply, Restarted, StatusReply, StatusRequest
from .wire.ids import Incarnation
from .wire.messages import Message
from .wire.sockets import Peer
from .wire.status import Code, DeadlineExceeded, PoolError
from .wire.worker_messages import Profiled, WarmupRecorded

_TIMEOUT_S = 5.0

A = TypeVar("A", StatusReply, WarmupRecorded, Profiled, HurtReply, Restarted)
R = TypeVar("R", WarmupRecorded, Profiled, Restarted)


class ControlClient:
    """One connection to the pool with this runtime directory, for one thread. Closed at the end of its `with` block."""

    def __init__(self, directory: Path) -> None:
        self._runtime_dir = directory
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        name = sockets.identity(Peer.CLIENT, Incarnation(secrets.randbits(62)))
        sockets.configure_dealer(self._socket, name, sockets.CONTROL_HWM)
        self._socket.connect(sockets.control_endpoint(directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def ask(self, question: Callable[[int], Message], kind: type[A], timeout_s: float = _TIMEOUT_S) -> A:
        """Send what `question` makes of a token; its answer of this kind. Raises DeadlineExceeded."""
        token = secrets.randbits(62)
        self._socket.send(codec.encode(question(token)))
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0 and self._socket.poll(int(left_s * 1000)):
            answer = codec.decode(self._socket.recv())
            if isinstance(answer, kind) and answer.token == token:
                return answer
        raise DeadlineExceeded(f"the pool at {self._runtime_dir} does not answer within {timeout_s:g} s")


def status(directory: Path) -> bytes:
    """The status document of the pool with this runtime directory. Raises DeadlineExceeded when it does not answer."""
    return ask(directory, StatusRequest, StatusReply, _TIMEOUT_S).body


def ask(directory: Path, question: Callable[[int], Message], kind: type[A], timeout_s: float) -> A:
    """One question on a connection of its own. Raises DeadlineExceeded."""
    with ControlClient(directory) as client:
        return client.ask(question, kind, timeout_s)


def order(
    command: str,
    base: Path,
    options: Options,
    question: Callable[[int], Message],
    kind: type[R],
    *,
    timeout_s: float,
) -> R | None:
    """Have the pool that the options mean do something; its answer, or None when it was refused, which is printed to
    standard error.
    """
    try:
        pool = runtime_dir.find_pool(base, options.runtime_dir, options.port)
        answer = ask(pool, question, kind, timeout_s)
    except PoolError as error:
        print(f"modelpool {command}: {error.message}", file=sys.stderr)
        return None
    if answer.code is not Code.OK:
        print(f"modelpool {command}: {answer.code.name}: {answer.message}", file=sys.stderr)
        return None
    return answer
