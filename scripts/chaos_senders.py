"""Scenes with clients that send too slowly."""

import contextlib
import time
from collections.abc import Iterator

import chaos_client
import grpc
import psutil
from chaos_load import Load
from chaos_pool import BrokenPromise, ChaosPool
from chaos_scene import Check, Scene, Stage
from slow_calls import PREDICT, SlowCalls

_MIB = 1 << 20
# As many as a frontend has places for, on so many connections.
_CALLS, _CONNECTIONS = 10_000, 10
# What the README says, and what a call takes beside it.
_WITHIN_S = 5.0 + 2.0
_GIVE_UP_S = 60.0
# What the refusal of a few hundred in one turn of the loop may take of a call beside it.
_SLACK, _MOST_LATE_MS = 2.0, 50.0
# Enough numbers for a message that packs well, and so goes the way of those that need a place.
_NUMBERS = 1000


def slow_senders(stage: Stage) -> list[Check]:
    """As many calls as a frontend has places for, of which each sends three bytes or only its headers, then nothing.

    They are let be as long as nobody needs their places; then those that have had their time go.
    """
    with (
        ChaosPool(stage.scratch, {"a": stage.models / "quick"}, flags=["--frontend=envoy"]) as pool,
        Load(pool.target, {"a": 4}) as load,
        contextlib.ExitStack() as stack,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        before_s, before_mib = time.monotonic(), _memory_mib(pool)
        with _goes_on("begin"):
            slow = [
                stack.enter_context(
                    SlowCalls(pool.port, _CALLS // _CONNECTIONS, _GIVE_UP_S, headers_only=bool(number % 2))
                )
                for number in range(_CONNECTIONS)
            ]
        refused, waited_s = _first_answer(pool)
        makes_room_s = time.monotonic() - 1.0
        memory_mib = _memory_mib(pool) - before_mib
        with _goes_on("end"):
            slow[0].wait_ended()
        time.sleep(stage.seconds(2.0, 0.5))
    a = load.calls["a"]
    calm_ms, meanwhile = a.between(0.0, before_s).p99_ms, a.between(makes_room_s)
    longest_ms = meanwhile.percentile_ms(1.0)
    return [
        Check(
            "those whose messages come at once are unharmed: 0 errors",
            not a.refused and not a.wrong,
            f"{len(a)} calls, {a.codes or 'no error'}, {a.wrong} wrong {a.texts[:2] or ''}",
        ),
        Check(
            f"one who needs a place has one within {_WITHIN_S:g} s",
            stage.timed(waited_s <= _WITHIN_S),
            f"after {waited_s:.1f} s, refused {refused} times before, each time with a hint when to come again",
        ),
        Check(
            "a call of another takes no longer while they give way (p99)",
            stage.timed(meanwhile.p99_ms <= _SLACK * calm_ms + _MOST_LATE_MS),
            f"{meanwhile.p99_ms:.1f} ms, the longest {longest_ms:.0f} ms; {calm_ms:.1f} ms before they came",
        ),
        Check("those who gave way were answered", True, f"{len(slow[0].ended)} seen of the first connection's"),
        Check("memory of the frontend for them (figure)", None, f"{memory_mib:.0f} MiB"),
    ]


@contextlib.contextmanager
def _goes_on(what: str) -> Iterator[None]:
    """Around what slow calls do. The server keeps their connections, and answers in time, or breaks its promise."""
    try:
        yield
    except OSError as error:  # a timeout or an error of the connection
        raise BrokenPromise(f"slow calls cannot {what}: {type(error).__name__}: {error}") from error


def _memory_mib(pool: ChaosPool) -> float:
    """Of the frontends. One that ends while it is looked at has broken its promise."""
    try:
        return sum(psutil.Process(pid).memory_info().rss for pid in pool.frontends()) / _MIB
    except psutil.NoSuchProcess as error:
        raise BrokenPromise(f"a frontend has ended: pid {error.pid}") from error


def _first_answer(pool: ChaosPool) -> tuple[int, float]:
    """Ask by packed messages, which need a place, until one is refused, and then until one is answered.

    How often it was refused, and for how long.
    """
    refused, full_s = 0, 0.0
    gives_up_s = time.monotonic() + _GIVE_UP_S
    request = chaos_client.request_bytes("a", *range(_NUMBERS))
    with grpc.insecure_channel(pool.target) as channel:
        call = channel.unary_unary(PREDICT)
        while time.monotonic() < gives_up_s:
            try:
                call(request, timeout=_GIVE_UP_S, compression=grpc.Compression.Gzip)
            except grpc.RpcError as error:
                if "retry-after" not in dict(error.trailing_metadata()):
                    raise BrokenPromise(f"refused without a hint: {error.details()}") from error
                full_s = full_s or time.monotonic()
                refused += 1
            else:
                if refused:
                    return refused, time.monotonic() - full_s
            time.sleep(0.1)
    raise BrokenPromise(f"refused {refused} times and not answered afterwards within {_GIVE_UP_S:g} s")


SCENES: dict[str, Scene] = {"slow senders": slow_senders}
