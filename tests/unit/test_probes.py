"""What the prober makes of calls, and the size it gives a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend.client.errors import InputError
from modelpool.frontend.client.probes import Call, Probes, Window, _Model
from modelpool.frontend.client.protos import PredictRequest


def test_a_window_tells_refusals_from_answers() -> None:
    calls = [Call(i, 0.001 * i) for i in range(1, 101)] + [Call(0, 9.0, "UNAVAILABLE", "died")]
    window = Window.of(calls)
    assert (window.calls, dict(window.errors)) == (101, {"UNAVAILABLE": 1})
    assert window.p50_s == pytest.approx(0.0505)
    assert window.max_s == pytest.approx(0.1), "a refusal's time is none"


def test_a_call_counts_where_it_ended() -> None:
    probes = Probes("localhost:1", 1)
    probes._models["m"] = _Model(b"", [Call(0.0, 1.5, "UNAVAILABLE", "died"), Call(0.0, 0.5)])
    assert probes.window("m", 0.0, 1.0).calls == 1
    assert probes.window("m", 1.0, 2.0).errors == {"UNAVAILABLE": 1}
    assert probes.texts("m", 1.0) == ["UNAVAILABLE: died"]


@given(st.integers(20, 70_000))
def test_padding_gives_any_size_and_changes_nothing(size_bytes: int) -> None:
    request = PredictRequest()
    request.model_spec.name = "m"
    probes = Probes("localhost:1", 1)
    probes._models["m"] = _Model(request.SerializeToString())
    padded = probes.padded("m", size_bytes)
    assert len(padded) == size_bytes
    assert PredictRequest.FromString(padded).model_spec.name == "m"


def test_too_small_a_size() -> None:
    probes = Probes("localhost:1", 1)
    probes._models["m"] = _Model(b"x" * 10)
    with pytest.raises(InputError, match="expected at least 14, got 12"):
        probes.padded("m", 12)
