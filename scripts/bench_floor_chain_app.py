"""The frontend's end of the barest chain that answers a call: Envoy's threads, two sockets, and the thread that waits.

Imported by pyvoy in Envoy's main thread, in the place of `modelpool.frontend.envoy_app`. A call's body leaves in the
thread in which pyvoy hands it over, and its answer comes to a thread that waits in its socket; a ZeroMQ socket is one
thread's, so there are two. That saves waking a thread between pyvoy's and ZeroMQ's. Calls are known by their numbers,
and nothing else is: no deadlines, no routes, no metrics. The other end is `bench_floor_chain`.
"""

import itertools
import threading
from typing import Any

import bench_floor_asgi
import zmq
from bench_floor_asgi import Application, Call
from bench_floor_chain_wire import ANSWERS, NUMBER, REQUESTS, endpoint

from modelpool.frontend.engine import Receive, Send
from modelpool.frontend.grpc_asgi import OK_START, OK_TRAILERS

_calls: "dict[int, _Call]" = {}
"""Those that are asked. pyvoy's thread adds, the other one removes, each in one step of the interpreter."""
_numbers = itertools.count()
_context: "zmq.Context[zmq.Socket[bytes]]" = zmq.Context(io_threads=1)


class _Call(Call):
    __slots__ = ("_body",)

    def __init__(self, receive: Receive, send: Send) -> None:
        super().__init__(receive, send)
        self._body = b""

    def took(self, part: bytes) -> None:
        self._body += part

    def answer(self) -> None:
        number = next(_numbers)
        _calls[number] = self
        _send(NUMBER.pack(number) + self._body)


async def _nothing(scope: object, receive: object, send: object) -> None:
    """The REST API, whose listener has a thread of its own, which must not touch the socket."""


def _connected(kind: int, path: str) -> "zmq.Socket[bytes]":
    socket = _context.socket(kind)
    socket.connect(path)
    return socket


def _answer() -> None:
    receive = _connected(zmq.PULL, endpoint(".", ANSWERS)).recv
    while True:
        message = receive()
        send = _calls.pop(NUMBER.unpack_from(message)[0]).send
        send(OK_START)
        send({"type": "http.response.body", "body": message[NUMBER.size :]})
        send(OK_TRAILERS)


_asking = _connected(zmq.PUSH, endpoint(".", REQUESTS))
# The method of pyzmq's C part, as the frontend takes it.
_send: Any = super(zmq.Socket, _asking).send
threading.Thread(target=_answer, name="answer", daemon=True).start()
bench_floor_asgi.begin()
grpc, rest = Application(_Call), _nothing
