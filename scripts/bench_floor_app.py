"""What Envoy with pyvoy costs without anything of ours behind it: reads a call's body, answers the same each time.

Imported by pyvoy in Envoy's main thread, in the place of `modelpool.frontend.envoy_app`; `bench_floor_server` makes
that Envoy. All of a call is done in the thread in which pyvoy hands it over: no task, no event loop, no other thread.
The body is taken and let go; the answer is the message in the file `REPLY` of the working directory.
"""

import asyncio
import signal
import threading
from pathlib import Path
from typing import Any

from bench_floor_server import REPLY

from modelpool.frontend import grpc_frames
from modelpool.frontend.engine import Receive, Send
from modelpool.frontend.envoy_loop import Begun, Delivery, GuestPolicy
from modelpool.frontend.grpc_asgi import OK_START, OK_TRAILERS, Scope
from modelpool.supervisor.wire import gathering
from modelpool.supervisor.wire.gathering import Gatherer

# The frontend's Envoy is drained by the supervisor, and so these were blocked; this one has none.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
_BODY = {"type": "http.response.body", "body": grpc_frames.plain(Path(REPLY).read_bytes())}


class _Call(Begun):
    """One call, in pyvoy's thread."""

    __slots__ = ("_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    def ask(self) -> None:
        """For the next part of the body."""
        message = self._receive()
        assert isinstance(message, Delivery)  # made by the `GuestLoop` that pyvoy has
        message.receiver = self

    def received(self, event: Any) -> None:
        if event.get("more_body"):
            self.ask()
            return
        send = self._send
        send(OK_START)
        send(_BODY)
        send(OK_TRAILERS)


class Application:
    """For pyvoy's threads of both listeners."""

    # A word of asgiref's: what is called once, with all three, though it is no coroutine function.
    _asgi_single_callable = True

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Begun:
        call = _Call(receive, send)
        call.ask()
        return call


def _gather() -> None:
    """As the frontend has its threads do."""
    gatherer, never = Gatherer(gathering.FRONTEND, gathering.all_threads), threading.Event()
    while not never.wait(gathering.PERIOD_S):
        gatherer.look()


threading.Thread(target=_gather, name="gather", daemon=True).start()
# Nothing is handed to this loop, so that it need not run.
asyncio.set_event_loop_policy(GuestPolicy(asyncio.new_event_loop()))
grpc = rest = Application()
