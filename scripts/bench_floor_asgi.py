"""What those applications share that stand in the place of the frontend's, in the Envoy of `bench_floor_server`.

Nothing of ours is at a call but this: its body is asked for and taken in the thread in which pyvoy hands it over. No
task, no event loop. The threads of such an Envoy wait for each other where those of a frontend do.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

from modelpool.frontend.engine import Receive, Send
from modelpool.frontend.envoy_loop import Begun, Delivery, GuestPolicy
from modelpool.frontend.grpc_asgi import Scope
from modelpool.supervisor.wire import gathering
from modelpool.supervisor.wire.gathering import Gatherer

# In the working directory of such an Envoy: the message that is the answer to all calls.
REPLY = "reply"


class Call(Begun):
    """One call, in pyvoy's thread: `took` is given each part of its body, then `answer` is called."""

    __slots__ = ("_receive", "send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self.send = send

    def ask(self) -> None:
        """For the next part of the body."""
        message = self._receive()
        assert isinstance(message, Delivery)  # made by the `GuestLoop` that pyvoy has
        message.receiver = self

    def received(self, event: Any) -> None:
        self.took(event.get("body", b""))
        if event.get("more_body"):
            self.ask()
        else:
            self.answer()

    def took(self, part: bytes) -> None:
        """Let it go, if not told otherwise."""

    def answer(self) -> None:
        """The body has ended."""
        raise NotImplementedError


class Application:
    """For pyvoy's threads: each call is one of these."""

    # A word of asgiref's: what is called once, with all three, though it is no coroutine function.
    _asgi_single_callable = True

    def __init__(self, call: Callable[[Receive, Send], Call]) -> None:
        self._call = call

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Call:
        call = self._call(receive, send)
        call.ask()
        return call


def begin() -> None:
    """To be called once, in Envoy's main thread."""
    # The frontend's Envoy is drained by the supervisor, and so these were blocked; this one has none.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    threading.Thread(target=_gather, name="gather", daemon=True).start()
    # Nothing is handed to this loop, so that it need not run.
    asyncio.set_event_loop_policy(GuestPolicy(asyncio.new_event_loop()))


def _gather() -> None:
    """As the frontend has its threads do."""
    gatherer, never = Gatherer(gathering.FRONTEND, gathering.all_threads), threading.Event()
    while not never.wait(gathering.PERIOD_S):
        gatherer.look()
