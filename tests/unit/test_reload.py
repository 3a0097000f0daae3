"""HandleReloadConfigRequest's pure part: what is taken and refused, and the text that says how it ended."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.model_config import ConfigError, ModelConfig
from modelpool.supervisor.reload import Settled, newly_named, outcome, overdue, parse_reload
from modelpool.supervisor.version_policy import Specific
from modelpool.supervisor.wire.protos import ReloadConfigRequest
from modelpool.supervisor.wire.status import OK, Code, Internal, InvalidArgument, Status

UNSUPPORTED = (
    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
)
M = ModelConfig("m", "/models/m")


def listing(*models: dict[str, Any]) -> bytes:
    request = ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for model in models:
        request.config.model_config_list.config.add(**({"model_platform": "tensorflow"} | model))
    raw: bytes = request.SerializeToString()
    return raw


def test_a_model_list_in_its_order() -> None:
    request = ReloadConfigRequest.FromString(listing({"name": "n", "base_path": "/models/n"}))
    entry = request.config.model_config_list.config.add(name="m", base_path="/models/m", model_platform="tensorflow")
    entry.model_version_policy.specific.versions.extend([2, 1])
    entry.version_labels["stable"] = 1
    request.metric_names.append("/any")
    assert parse_reload(request.SerializeToString(), ()) == (
        ModelConfig("n", "/models/n"),
        ModelConfig("m", "/models/m", version_policy=Specific((1, 2)), labels={"stable": 1}),
    )


def test_an_empty_list_names_no_model() -> None:
    assert parse_reload(listing(), (M,)) == ()


def test_a_config_that_is_not_set_or_custom_is_refused() -> None:
    custom = ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    empty = ReloadConfigRequest()
    empty.config.SetInParent()
    for request in (b"", custom.SerializeToString(), empty.SerializeToString()):
        with pytest.raises(InvalidArgument) as error:
            parse_reload(request, ())
        assert error.value.message == UNSUPPORTED


@pytest.mark.parametrize("request_", [b"\xff", b"\x0a\x05ab", listing({"name": "m", "base_path": "/m"})[:-1]])
def test_what_is_no_protobuf_is_internal(request_: bytes) -> None:
    with pytest.raises(Internal) as error:
        parse_reload(request_, ())
    assert error.value.message == "Malformed request: not a ReloadConfigRequest"


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (
            [{"name": "m", "base_path": "/a"}, {"name": "m", "base_path": "/b"}],
            "Illegal to list model m multiple times in config list",
        ),
        (
            [{"name": "m", "base_path": "a"}],
            "Expected model m to have an absolute path or URI; got base_path()=a",
        ),
        (
            [{"name": "m", "base_path": "/a", "model_platform": "other"}],
            "Illegal to change a model's platform. For model m platform was tensorflow "
            "and new platform requested is other",
        ),
    ],
)
def test_the_list_is_checked_against_the_one_in_force(models: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_reload(listing(*models), (M,))
    assert error.value.message == text


def test_newly_named_models() -> None:
    wanted = (ModelConfig("z", "/z"), ModelConfig("m", "/elsewhere"), ModelConfig("a", "/a"))
    assert newly_named((M, ModelConfig("gone", "/gone")), wanted) == ("z", "a")


def test_outcome_when_all_are_available() -> None:
    assert outcome({}) == OK
    assert outcome({"m": Settled(3, OK)}) == OK


def test_outcome_of_one_that_failed() -> None:
    failed = Settled(1, Status(Code.NOT_FOUND, "Could not find SavedModel"))
    assert outcome({"b": Settled(2, OK), "a": failed}) == Status(
        Code.UNKNOWN,
        "1 model(s) did not become available: "
        "{{{name: a version: 1} due to error: NOT_FOUND: Could not find SavedModel}, }",
    )


def test_outcome_of_several_is_sorted_by_name() -> None:
    waiting = {"z": Settled(7, Status(Code.DATA_LOSS, "cut short")), "a": Settled(None, overdue(0.5))}
    assert outcome(waiting).message == (
        "2 model(s) did not become available: "
        "{{{name: a} due to error: DEADLINE_EXCEEDED: neither available nor given up within 0.5 s "
        "(--reload_timeout_s); it is still being tried}, "
        "{{name: z version: 7} due to error: DATA_LOSS: cut short}, }"
    )


def test_overdue_says_why_the_last_attempt_failed() -> None:
    assert overdue(120.0, Status(Code.NOT_FOUND, "no folder")) == Status(
        Code.DEADLINE_EXCEEDED,
        "neither available nor given up within 120 s (--reload_timeout_s); it is still being tried; "
        "last error: NOT_FOUND: no folder",
    )


statuses = st.sampled_from([OK, Status(Code.INTERNAL, "x")])


@given(st.dictionaries(st.text(), st.builds(Settled, st.none() | st.integers(0), statuses)))
def test_outcome_counts_what_failed(waiting: dict[str, Settled]) -> None:
    failed = sum(settled.status is not OK for settled in waiting.values())
    status = outcome(waiting)
    assert status.code is (Code.UNKNOWN if failed else Code.OK)
    assert not failed or status.message.startswith(f"{failed} model(s) did not become available: {{{{{{name: ")
