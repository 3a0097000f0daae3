"""When the client makes a call again, with a clock of its own: hints, the user's retries, deadlines."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelpool.frontend.client import CallError, InputError, Internal, ResourceExhausted, Unavailable
from modelpool.frontend.client.errors import call_error
from modelpool.frontend.client.retry import Deadline, Method, RetryPolicy, Send, Wait, hint, send

METHOD = Method("/a.Service/Call", None)
UNREPEATABLE = Method("/a.Service/Change", None, repeatable=False)


@dataclass
class World:
    """Drives a call: answers each attempt by the next of `answers`, and lets time pass where it waits."""

    answers: Iterable[Any]
    now_s: float = 100.0
    call_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def run(self, timeout_s: float = math.inf, retries: int = 0, method: Method = METHOD) -> Any:
        policy = RetryPolicy(retries, jitter=lambda: 0.5)
        steps = send(method, "request", Deadline.after(timeout_s, self.clock), policy)
        answers = iter(self.answers)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    self.waits.append(step.seconds)
                    self.now_s += step.seconds
                    step = next(steps)
                    continue
                assert isinstance(step, Send)
                self.timeouts.append(step.timeout_s)
                self.now_s += self.call_s
                answer = next(answers)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as done:
            return done.value


def after(text: str) -> Unavailable:
    return Unavailable("busy", {"retry-after": text})


def pushback(text: str) -> ResourceExhausted:
    return ResourceExhausted("full", {"grpc-retry-pushback-ms": text})


def test_an_answer_is_the_result() -> None:
    world = World(["reply"])
    assert world.run() == "reply"
    assert world.timeouts == [None]


def test_hints_are_followed() -> None:
    world = World([after("2"), pushback("250"), after("0.5"), "reply"])
    assert world.run() == "reply"
    assert world.waits == [2.0, 0.25, 0.5]


def test_each_attempt_gets_what_the_deadline_leaves() -> None:
    world = World([after("2"), "reply"], call_s=1.0)
    assert world.run(timeout_s=10) == "reply"
    assert world.timeouts == [10.0, 7.0]


def test_a_hint_beyond_the_deadline_is_not_waited_for() -> None:
    world = World([after("5")], call_s=1.0)
    with pytest.raises(Unavailable, match="busy"):
        world.run(timeout_s=6)
    assert world.waits == []


def test_a_hint_just_within_the_deadline_is_followed() -> None:
    assert World([after("4.9"), "reply"], call_s=1.0).run(timeout_s=6) == "reply"


def test_hints_are_followed_five_times() -> None:
    world = World([after("1")] * 10)
    with pytest.raises(Unavailable):
        world.run()
    assert len(world.timeouts) == 6


def test_a_hint_of_hours_is_an_error() -> None:
    with pytest.raises(Unavailable):
        World([after("3600")]).run()


@pytest.mark.parametrize("error", [Unavailable("gone"), ResourceExhausted("full"), Internal("x", {"retry-after": "1"})])
def test_without_a_hint_nothing_is_repeated(error: CallError) -> None:
    world = World([error])
    with pytest.raises(type(error)):
        world.run()
    assert world.waits == []


def test_retries_that_were_asked_for() -> None:
    world = World([Unavailable("gone")] * 9)
    with pytest.raises(Unavailable):
        world.run(retries=3)
    assert world.waits == pytest.approx([0.075, 0.15, 0.3])


def test_the_backoff_has_a_limit() -> None:
    world = World([*[Unavailable("gone")] * 9, "reply"])
    assert world.run(retries=9) == "reply"
    assert max(world.waits) == pytest.approx(3.75)


def test_hints_do_not_use_up_the_retries() -> None:
    world = World([after("1"), Unavailable("gone"), after("1"), "reply"])
    assert world.run(retries=1) == "reply"


@pytest.mark.parametrize("error", [ResourceExhausted("full"), call_error(2, "what"), Internal("bug")])
def test_only_unavailable_is_retried_by_wish(error: CallError) -> None:
    with pytest.raises(type(error)):
        World([error]).run(retries=5)


def test_what_changes_the_server_is_repeated_on_a_hint_only() -> None:
    with pytest.raises(Unavailable):
        World([Unavailable("gone")]).run(retries=5, method=UNREPEATABLE)
    assert World([after("1"), "reply"]).run(retries=5, method=UNREPEATABLE) == "reply"


@pytest.mark.parametrize("text", ["-1", "soon", "nan"])
def test_a_pushback_that_forbids_a_retry(text: str) -> None:
    error = Unavailable("no", {"grpc-retry-pushback-ms": text, "retry-after": "1"})
    assert hint(error) == math.inf
    with pytest.raises(Unavailable):
        World([error]).run(retries=5)


@pytest.mark.parametrize("text", ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "", "inf", "nan"])
def test_a_retry_after_that_says_nothing(text: str) -> None:
    assert hint(after(text)) is None


def test_a_deadline_has_to_be_in_the_future() -> None:
    with pytest.raises(InputError, match="timeout_s: expected a positive number"):
        World([]).run(timeout_s=0)


def test_errors_by_code() -> None:
    assert type(call_error(14, "gone")) is Unavailable
    assert type(call_error(2, "what")) is CallError
    assert call_error(99, "what").code == 2
    assert str(call_error(14, "gone")) == "UNAVAILABLE: gone"
