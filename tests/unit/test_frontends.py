"""How soon a frontend that died is replaced, and when one counts as listening."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from modelpool.supervisor.frontends import Frontends, restart_delay_s
from modelpool.supervisor.routes import RouteBoard
from modelpool.supervisor.wire.client_messages import StatusRequest
from modelpool.supervisor.wire.frontend_messages import FrontendHello
from modelpool.supervisor.wire.frontend_spec import Engine
from modelpool.supervisor.wire.ids import Incarnation


@pytest.mark.parametrize(("lived_s", "short_lives"), [(0.5, 1), (0.5, 2), (10.0, 0)])
def test_one_that_took_requests_is_replaced_at_once(lived_s: float, short_lives: int) -> None:
    assert restart_delay_s(True, lived_s, short_lives) == 0.0


def test_the_third_in_a_row_that_dies_young_waits() -> None:
    assert restart_delay_s(True, 0.5, 3) == 1.5


@pytest.mark.parametrize(("lived_s", "delay_s"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (60.0, 0.0)])
def test_one_that_never_took_requests_waits_for_its_time(lived_s: float, delay_s: float) -> None:
    assert restart_delay_s(False, lived_s, 1 if lived_s < 2 else 0) == delay_s


def test_one_that_passes_on_a_question_listens() -> None:
    async def play() -> None:
        processes: Any = SimpleNamespace(spawn_frontend=lambda spec: 7)
        control: Any = SimpleNamespace(send=lambda *_: True)
        spec: Any = None
        frontends = Frontends(
            1, Engine.ENVOY, lambda *_: spec, processes=processes, control=control, board=RouteBoard()
        )
        frontends.start()
        assert frontends.handle(Incarnation(1), FrontendHello(7))
        assert not frontends.listening
        assert not frontends.handle(Incarnation(1), StatusRequest(1)), "it is somebody else's to answer"
        assert frontends.listening

    asyncio.run(play())
