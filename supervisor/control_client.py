"""The command line's side of a running pool's control socket: one question, one answer. Used by commands only."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import zmq

from .wire import codec, sockets
from .wire.ids import Incarnation
from .wire.messages import Message, Profiled, StatusReply, StatusRequest, WarmupRecorded
from .wire.sockets import Peer
from .wire.status import DeadlineExceeded

_TIMEOUT_S = 5.0

A = TypeVar("A", StatusReply, WarmupRecorded, Profiled)


def status(runtime_dir: Path) -> bytes:
    """The status document of the pool with this runtime directory. Raises DeadlineExceeded when it does not answer."""
    return ask(runtime_dir, StatusRequest, StatusReply, _TIMEOUT_S).body


def ask(runtime_dir: Path, question: Callable[[int], Message], kind: type[A], timeout_s: float) -> A:
    """Send what `question` makes of a token, and wait for the answer of this kind to it. Raises DeadlineExceeded."""
    token = secrets.randbits(62)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    socket = context.socket(zmq.DEALER)
    try:
        name = sockets.identity(Peer.CLIENT, Incarnation(token))
        sockets.configure_dealer(socket, name, sockets.CONTROL_HWM)
        socket.connect(sockets.control_endpoint(runtime_dir))
        socket.send(codec.encode(question(token)))
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0 and socket.poll(int(left_s * 1000)):
            answer = codec.decode(socket.recv())
            if isinstance(answer, kind) and answer.token == token:
                return answer
        raise DeadlineExceeded(f"the pool at {runtime_dir} does not answer within {timeout_s:g} s")
    finally:
        socket.close(linger=0)
        context.term()
