"""Version labels: TF Serving's text, and the laws of what may point where."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.labels import check
from modelpool.supervisor.wire.status import FailedPrecondition

Labels = dict[str, dict[str, int]]

models = st.sampled_from(["m", "n"])
versions = st.integers(1, 3)
label_maps = st.dictionaries(models, st.dictionaries(st.sampled_from(["stable", "canary"]), versions))
available_maps = st.dictionaries(models, st.frozensets(versions))
REFUSAL = "Request to assign label to version {} of model {}, which is not currently available for inference"


def refusal(
    current: Labels, wanted: Labels, available: Mapping[str, frozenset[int]], allow_unavailable: bool
) -> str | None:
    try:
        check(current, wanted, available, allow_unavailable)
    except FailedPrecondition as error:
        return error.message
    return None


@pytest.mark.parametrize("allow_unavailable", [False, True])
def test_moving_a_label_in_use_needs_an_available_target(allow_unavailable: bool) -> None:
    current = {"m": {"stable": 1, "canary": 2}}
    available = {"m": frozenset({1, 2})}
    assert refusal(current, {"m": {"stable": 2, "canary": 2}}, available, allow_unavailable) is None
    moved = {"m": {"canary": 2, "stable": 3}}
    assert refusal(current, moved, available, allow_unavailable) == REFUSAL.format(3, "m")


def test_a_new_label_may_point_anywhere_with_the_flag() -> None:
    currents: list[Labels] = [{}, {"m": {}}, {"m": {"canary": 1}}, {"n": {"stable": 1}}]
    for current in currents:
        assert refusal(current, {"m": {"stable": 7}}, {}, True) is None
        assert refusal(current, {"m": {"stable": 7}}, {}, False) == REFUSAL.format(7, "m")


def test_a_label_that_stays_needs_an_available_target_without_the_flag() -> None:
    labels = {"m": {"stable": 1}}
    assert refusal(labels, labels, {"m": frozenset({2})}, True) is None
    assert refusal(labels, labels, {"m": frozenset({2})}, False) == REFUSAL.format(1, "m")


def test_a_version_of_another_model_does_not_count() -> None:
    assert refusal({}, {"m": {"stable": 1}}, {"n": frozenset({1})}, False) == REFUSAL.format(1, "m")


@given(label_maps, label_maps, available_maps)
def test_the_flag_only_ever_allows_more(current: Labels, wanted: Labels, available: dict[str, frozenset[int]]) -> None:
    if refusal(current, wanted, available, False) is None:
        assert refusal(current, wanted, available, True) is None


@given(label_maps, label_maps, available_maps, st.booleans())
def test_all_are_taken_exactly_when_each_is(
    current: Labels, wanted: Labels, available: dict[str, frozenset[int]], allow_unavailable: bool
) -> None:
    alone = [
        refusal(current, {model: {label: version}}, available, allow_unavailable)
        for model, labels in wanted.items()
        for label, version in labels.items()
    ]
    refused = [text for text in alone if text is not None]
    assert refusal(current, wanted, available, allow_unavailable) == (refused[0] if refused else None)


@given(label_maps, label_maps, st.booleans())
def test_available_versions_may_always_be_labelled(current: Labels, wanted: Labels, allow_unavailable: bool) -> None:
    available = {model: frozenset(labels.values()) for model, labels in wanted.items()}
    check(current, wanted, available, allow_unavailable)


@given(label_maps, label_maps, available_maps)
def test_what_is_taken_with_the_flag_is_taken_again(
    current: Labels, wanted: Labels, available: dict[str, frozenset[int]]
) -> None:
    if refusal(current, wanted, available, True) is None:
        assert refusal(wanted, wanted, {}, True) is None
