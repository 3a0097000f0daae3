"""Warmup recordings by order: who is refused with which text, who is answered, and what becomes of them without one."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from modelpool.supervisor import orders
from modelpool.supervisor.chaos import Chaos
from modelpool.supervisor.configuration import Configuration, Seams
from modelpool.supervisor.model_policy import ModelPolicy
from modelpool.supervisor.orders import Orders
from modelpool.supervisor.profilings import Profilings
from modelpool.supervisor.tasks import Tasks
from modelpool.supervisor.wire.client_messages import RecordingGoesOn, RecordWarmupOf
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import EndRecording, RecordWarmup, WarmupRecorded
from tests.unit.manager_world import KILLED, World

CLIENT = Incarnation(99)
TOKEN = 5


class _Policies:
    """All of a configuration that orders for recordings look at."""

    def __init__(self, **policies: ModelPolicy) -> None:
        self._policies = policies

    def policy(self, model: str) -> ModelPolicy:
        return self._policies.get(model, ModelPolicy())


class Desk:
    """Orders of a pool with one model, m, version 1, and all that was sent."""

    def __init__(self, *, record_warmup: bool) -> None:
        self.world = World()
        self.world.aspire(1)
        self.worker = self.world.ready(1)
        self.tasks = Tasks()
        self.sent: list[tuple[Peer, Incarnation, Message]] = []
        self.client_is_there = True
        self.orders = Orders(
            self.world.manager,
            cast(Configuration, _Policies(m=ModelPolicy(record_warmup=record_warmup))),
            cast(Chaos, None),
            Profilings("", "box"),
            send=self.send,
            seams=Seams(self.tasks.changed, self.tasks.background, self.tasks.until),
        )

    def send(self, peer: Peer, incarnation: Incarnation, message: Message) -> bool:
        if peer is Peer.CLIENT and not self.client_is_there:
            return False
        self.sent.append((peer, incarnation, message))
        return True

    def ask(self, path: Path | str, model: str = "m", version: int | None = None) -> None:
        order = RecordWarmup(TOKEN, 10, 60.0, str(path))
        assert self.orders.asked(Peer.CLIENT, CLIENT, RecordWarmupOf(model, version, order))

    def sent_of(self, kind: type[Message]) -> list[tuple[Peer, Incarnation, Message]]:
        return [each for each in self.sent if isinstance(each[2], kind)]

    async def sends(self, kind: type[Message]) -> tuple[Peer, Incarnation, Message]:
        async with asyncio.timeout(10):
            while not self.sent_of(kind):  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0.001)
        return self.sent_of(kind)[0]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_STILL_THERE_S", 0.001)


def at_desk(play: Callable[[Desk], Coroutine[Any, Any, None]], *, record_warmup: bool = True) -> None:
    async def run() -> None:
        await play(Desk(record_warmup=record_warmup))

    asyncio.run(run())


def refusal(path: Path | str, *, model: str = "m", version: int | None = None, on: bool = True) -> tuple[Code, str]:
    refused: list[tuple[Code, str]] = []

    async def play(desk: Desk) -> None:
        desk.ask(path, model, version)
        peer, asker, answer = await desk.sends(WarmupRecorded)
        assert isinstance(answer, WarmupRecorded)
        assert (peer, asker, answer.token, answer.records) == (Peer.CLIENT, CLIENT, TOKEN, 0)
        assert not desk.sent_of(RecordWarmup), "no worker is troubled"
        refused.append((answer.code, answer.message))

    at_desk(play, record_warmup=on)
    return refused[0]


def test_there_has_to_be_such_a_model_first(tmp_path: Path) -> None:
    assert refusal(tmp_path / "f", model="n") == (Code.NOT_FOUND, "no worker serves model n")
    assert refusal(tmp_path / "f", version=2) == (Code.NOT_FOUND, "no worker serves model m version 2")


def test_it_has_to_be_allowed(tmp_path: Path) -> None:
    text = "recording is off for model m: set record_warmup = true for it in --pool_config_file"
    assert refusal(tmp_path / "f", on=False) == (Code.FAILED_PRECONDITION, text)


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    missing, below_a_file = tmp_path / "no" / "such" / "f", tmp_path / "file" / "f"
    assert refusal(missing) == (
        Code.NOT_FOUND,
        f"cannot write {missing}: FileNotFoundError: No such file or directory",
    )
    assert refusal(below_a_file) == (
        Code.FAILED_PRECONDITION,
        f"cannot write {below_a_file}: NotADirectoryError: Not a directory",
    )
    assert refusal(tmp_path) == (
        Code.FAILED_PRECONDITION,
        f"cannot write {tmp_path}: IsADirectoryError: Is a directory",
    )
    assert refusal("/a\0b/c/d") == (Code.INVALID_ARGUMENT, r"path: no file can have the name '/a\x00b/c/d'")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user that is not root
    assert refusal(tmp_path / "f") == (
        Code.PERMISSION_DENIED,
        f"cannot write {tmp_path}/f: PermissionError: Permission denied",
    )


def test_who_waits_is_answered(tmp_path: Path) -> None:
    async def play(desk: Desk) -> None:
        desk.ask(tmp_path / "assets.extra" / "f")
        assert (await desk.sends(RecordWarmup))[:2] == (Peer.WORKER, desk.worker)
        assert await desk.sends(RecordingGoesOn) == (Peer.CLIENT, CLIENT, RecordingGoesOn(TOKEN))
        done = WarmupRecorded(TOKEN, Code.OK, "", 3)
        desk.orders.answered(done)
        assert await desk.sends(WarmupRecorded) == (Peer.CLIENT, CLIENT, done)
        desk.orders.worker_died(desk.worker)
        assert len(desk.sent_of(WarmupRecorded)) == 1
        assert not desk.sent_of(EndRecording)

    at_desk(play)


def test_without_a_client_the_recording_ends(tmp_path: Path) -> None:
    async def play(desk: Desk) -> None:
        desk.ask(tmp_path / "f")
        await desk.sends(RecordingGoesOn)
        desk.client_is_there = False
        assert await desk.sends(EndRecording) == (Peer.WORKER, desk.worker, EndRecording(TOKEN))
        desk.orders.worker_died(desk.worker)
        assert not desk.sent_of(WarmupRecorded), "nobody to tell"

    at_desk(play)


def test_a_worker_that_dies_while_it_records_is_told(tmp_path: Path) -> None:
    async def play(desk: Desk) -> None:
        desk.ask(tmp_path / "f")
        await desk.sends(RecordWarmup)
        desk.world.die(desk.worker, KILLED)
        desk.orders.worker_died(desk.worker)
        lost = WarmupRecorded(TOKEN, Code.UNAVAILABLE, "The worker died while it recorded", 0)
        assert await desk.sends(WarmupRecorded) == (Peer.CLIENT, CLIENT, lost)

    at_desk(play)
