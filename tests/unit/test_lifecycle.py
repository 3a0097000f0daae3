"""The life-cycle table: every path that the design names, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor import lifecycle
from modelpool.supervisor.lifecycle import ALIVE, TRANSITIONS, SlotEvent, SlotState


def walk(*events: SlotEvent) -> SlotState:
    state = SlotState.PENDING
    for event in events:
        state = lifecycle.reduce(state, event)
    return state


def test_a_slot_comes_up_and_goes() -> None:
    up = (SlotEvent.SPAWN, SlotEvent.LOADING, SlotEvent.WARMING, SlotEvent.READY)
    assert walk(*up) is SlotState.READY
    assert walk(*up, SlotEvent.UNLOAD) is SlotState.DRAINING
    assert walk(*up, SlotEvent.UNLOAD, SlotEvent.EXITED) is SlotState.STOPPED


def test_a_model_without_warmup_is_ready_after_loading() -> None:
    assert walk(SlotEvent.SPAWN, SlotEvent.LOADING, SlotEvent.READY) is SlotState.READY


@pytest.mark.parametrize("state", [SlotState.STARTING, SlotState.LOADING, SlotState.WARMING, SlotState.READY])
def test_a_process_that_must_go_is_gone_only_at_its_exit(state: SlotState) -> None:
    killing = lifecycle.reduce(state, SlotEvent.KILL)
    assert killing is SlotState.KILLING
    assert lifecycle.reduce(killing, SlotEvent.EXITED) is SlotState.BACKOFF


@pytest.mark.parametrize("state", list(SlotState))
def test_every_state_with_a_process_can_see_its_exit(state: SlotState) -> None:
    assert ((state, SlotEvent.EXITED) in TRANSITIONS) == (state in ALIVE)


@pytest.mark.parametrize("state", [SlotState.PENDING, SlotState.STOPPED, SlotState.FAILED, SlotState.DRAINING])
def test_an_illegal_event_raises_and_names_both(state: SlotState) -> None:
    with pytest.raises(lifecycle.IllegalTransition, match=f"slot state {state}: event ready is not allowed"):
        lifecycle.reduce(state, SlotEvent.READY)


@given(st.lists(st.sampled_from(list(SlotEvent)), max_size=30))
def test_stopped_is_the_end(events: list[SlotEvent]) -> None:
    state = SlotState.STOPPED
    for event in events:
        with pytest.raises(lifecycle.IllegalTransition):
            lifecycle.reduce(state, event)


def test_every_state_is_reachable() -> None:
    reached, frontier = {SlotState.PENDING}, [SlotState.PENDING]
    while frontier:
        state = frontier.pop()
        for (source, _), target in TRANSITIONS.items():
            if source is state and target not in reached:
                reached.add(target)
                frontier.append(target)
    assert reached == set(SlotState)
