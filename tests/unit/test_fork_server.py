"""How soon a fork server that died, that cannot be started, or that does not answer is started again."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from modelpool.supervisor import fork_server
from modelpool.supervisor.fork_server import ForkServer, restart_delay_s
from modelpool.supervisor.wire.ids import Incarnation
from tests.unit.test_worker_memory import SPEC

PID = 4711


class Timer:
    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s, self.call = at_s, call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """An event loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[Timer] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(at_s, lambda: call(*arguments)))
        return self.timers[-1]

    def call_later(self, in_s: float, call: Callable[..., None], *arguments: Any) -> Timer:
        return self.call_at(self.now_s + in_s, call, *arguments)

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        self.readers[fd] = call

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def remove_writer(self, fd: int) -> None:
        pass

    def pass_(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.at_s <= end_s]:
            timer = min(due, key=lambda each: each.at_s)
            self.timers.remove(timer)
            self.now_s = max(self.now_s, timer.at_s)
            timer.call()
        self.now_s = end_s


class Stage:
    """A fork server whose process is played: what was asked for, what was answered, and its kills."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        self.started = 0
        self.kills: list[float] = []
        self.answers: list[tuple[Incarnation, int]] = []
        self.channel: socket.socket | None = None
        self._lifeline_fd = os.open(os.devnull, os.O_RDONLY)
        monkeypatch.setattr(fork_server.asyncio, "get_running_loop", lambda: self.loop)
        monkeypatch.setattr(fork_server.subprocess, "Popen", self._popen)
        monkeypatch.setattr(fork_server.os, "kill", lambda *_: self.kills.append(self.loop.now_s))
        self.server = ForkServer("a.module", self._lifeline_fd, "info", lambda i, pid, _: self.answers.append((i, pid)))

    def close(self) -> None:
        os.close(self._lifeline_fd)
        if self.channel is not None:
            self.channel.close()
        if self.server._channel is not None:
            self.server._channel.close()

    def ask(self, number: int) -> None:
        self.server.ask(replace(SPEC, incarnation=Incarnation(number)), (self._lifeline_fd,))

    def answer(self, number: int) -> None:
        assert self.channel is not None
        self.channel.send(msgpack.packb([number, PID + number, ""]))
        for read in list(self.loop.readers.values()):
            read()

    def _popen(self, *_: Any, pass_fds: tuple[int, ...], **__: Any) -> Any:
        self.started += 1
        if self.channel is not None:
            self.channel.close()
        self.channel = socket.socket(fileno=os.dup(pass_fds[0]))
        return SimpleNamespace(pid=PID, returncode=None)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch)
    yield made
    made.close()


def test_one_that_no_descriptor_is_left_for_is_started_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def socketpair(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as full:
        full.setattr(fork_server.socket, "socketpair", socketpair)
        stage.server.start()
    stage.ask(1)
    assert stage.started == 0
    stage.loop.pass_(5.0)
    assert stage.started == 1
    stage.answer(1)
    assert stage.answers == [(1, PID + 1)]


def test_the_first_answer_may_wait_for_an_import(stage: Stage) -> None:
    stage.server.start()
    stage.ask(1)
    stage.ask(2)
    stage.loop.pass_(299.0)
    stage.answer(1)
    stage.loop.pass_(29.0)
    assert stage.kills == []
    stage.answer(2)
    stage.loop.pass_(1000.0)
    assert stage.kills == []


def test_one_that_never_answers_is_killed_and_the_next_one_has_as_long(stage: Stage) -> None:
    stage.server.start()
    stage.ask(1)
    stage.loop.pass_(301.0)
    assert stage.kills == [1300.0]
    stage.server.exited("killed by SIGKILL")
    assert stage.answers == [(1, 0)]
    stage.ask(2)
    stage.loop.pass_(299.0)
    assert (stage.started, stage.kills) == (2, [1300.0])


def test_one_that_stands_still_after_it_has_answered_is_killed_soon(stage: Stage) -> None:
    stage.server.start()
    stage.ask(1)
    stage.answer(1)
    stage.loop.pass_(100.0)
    stage.ask(2)
    stage.loop.pass_(20.0)
    stage.ask(3)
    stage.loop.pass_(15.0)
    assert stage.kills == [1130.0]


@pytest.mark.parametrize("young_deaths", [0, 1])
def test_a_single_death_delays_no_load(young_deaths: int) -> None:
    assert restart_delay_s(young_deaths) == 0.0


def test_one_that_cannot_live_is_started_less_and_less_often_and_never_given_up() -> None:
    assert [restart_delay_s(count) for count in (2, 3, 4, 5, 6, 10_000)] == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
