"""What was given up is tried once more when the settings change on which its load depends."""

from typing import Any

import pytest

from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.model_policy import ModelPolicy
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code
from tests.unit.manager_world import World, crash_loop, promote


def configure(world: World, policy: ModelPolicy, **settings: Any) -> None:
    world.manager.configure({"m": ModelSettings(of_loads=policy.of_loads(), **settings)})
    world.advance()


@pytest.mark.parametrize(
    "change",
    [
        {"golden_atol": 100.0},
        {"golden_rtol": 1.0},
        {"op_libraries": ("/lib/ops.so",)},
        {"python_modules": ("tensorflow_text",)},
        {"auto_warmup": True},
        {"host_memory_mb": 500.0},
        {"cpus": ("0",)},
    ],
)
def test_a_load_that_failed_for_good_is_tried_with_new_settings(change: dict[str, Any]) -> None:
    world = World()
    configure(world, ModelPolicy())
    world.aspire(1)
    world.fail_load(1, permanent=True, code=Code.FAILED_PRECONDITION)
    assert not world.alive
    configure(world, ModelPolicy(**change))
    world.fail_load(1, permanent=True, code=Code.FAILED_PRECONDITION)
    configure(world, ModelPolicy(**change))
    assert not world.alive, "once"
    configure(world, ModelPolicy())
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_settings_that_no_load_depends_on_have_nothing_tried() -> None:
    world = World()
    configure(world, ModelPolicy())
    world.aspire(1)
    world.fail_load(1, permanent=True)
    configure(world, ModelPolicy(quarantine_s=5.0, settle_s=7.0, record_warmup=True, max_restarts=9))
    assert not world.alive


def test_what_waits_for_its_trial_after_a_crash_loop_is_tried_at_once() -> None:
    world = World()
    configure(world, ModelPolicy())
    world.aspire(1)
    world.ready(1)
    world.ack()
    crash_loop(world, 1)
    assert not world.alive
    configure(world, ModelPolicy(host_memory_mb=500.0))
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_a_place_that_failed_is_tried_while_the_others_serve() -> None:
    world = World()
    two = DevicePolicy(replicas=2)
    configure(world, ModelPolicy(), devices=two)
    world.aspire(1)
    first, second = sorted(world.alive)
    world.speak(first)
    world.fail(second, permanent=True)
    assert set(world.alive) == {first}
    configure(world, ModelPolicy(golden_atol=100.0), devices=two)
    (third,) = set(world.alive) - {first}
    world.speak(third)
    assert {slot.state for slot in world.servable(1).slots} == {SlotState.READY}


@pytest.mark.parametrize("transition", TransitionPolicy)
def test_a_version_that_was_rolled_back_is_tried_with_new_settings(transition: TransitionPolicy) -> None:
    """In the order of the model's transition policy."""
    world = World(transition)
    configure(world, ModelPolicy(), transition=transition)
    promote(world, 1)
    world.manager.aspire("m", {2: "/models/m/2"}, {v: f"/models/m/{v}" for v in (1, 2)})
    for _ in range(2):
        world.advance()
        world.ack()
        world.bury()
    world.fail_load(2, permanent=True, code=Code.FAILED_PRECONDITION)
    if transition is TransitionPolicy.RESOURCE_PRESERVING:
        world.ready(1)
        world.ack()
    configure(world, ModelPolicy(golden_atol=100.0), transition=transition)
    beside = {spawn.slot.servable.version for spawn in world.alive.values()}
    assert beside == ({1} if transition is TransitionPolicy.RESOURCE_PRESERVING else {1, 2})
    world.ack()
    world.bury()
    world.ready(2)
    for _ in range(2):
        world.ack()
        world.bury()
    assert world.states() == {1: ServableState.END, 2: ServableState.AVAILABLE}
