"""What Envoy is told, from a frontend's spec."""

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend import envoy_config
from modelpool.frontend.envoy_config import Surroundings, bootstrap
from modelpool.supervisor.wire.frontend_spec import FrontendSpec, Tls
from modelpool.supervisor.wire.ids import Incarnation

AROUND = Surroundings("/lib/pyvoy.so", "/run/a1", "/run/d1", 1000, ipv6=True, cpus=4)
SPEC = FrontendSpec(Incarnation(1), "ipc:///run/control", 8500, 8501, "/run/grpc.sock", 30.0, 1 << 20, "INFO")
TLS = Tls("KEY", "CERT", "CA", client_verify=False)


def listeners(spec: FrontendSpec, around: Surroundings = AROUND) -> dict[str, Any]:
    document = json.loads(json.dumps(bootstrap(spec, around)))
    return {listener["name"]: listener for listener in document["static_resources"]["listeners"]}


def test_port_and_socket_share_a_listener() -> None:
    grpc = listeners(SPEC)["grpc"]
    assert grpc["address"]["socket_address"] == {"address": "::", "port_value": 8500, "ipv4_compat": True}
    assert grpc["additional_addresses"] == [{"address": {"pipe": {"path": "/run/grpc.sock"}}}]
    old = listeners(SPEC, replace(AROUND, ipv6=False))
    assert old["rest"]["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 8501}


@pytest.mark.parametrize(("cpus", "each_bytes"), [(1, 8 << 20), (4, 8 << 20), (64, 1 << 19), (1024, 1 << 15)])
def test_what_the_allocator_keeps_is_bounded_on_many_cpus(cpus: int, each_bytes: int) -> None:
    found = bootstrap(SPEC, replace(AROUND, cpus=cpus))["memory_allocator_manager"]
    assert found["max_per_cpu_cache_size_bytes"] == each_bytes


def test_only_what_is_asked_for_is_listened_on() -> None:
    assert set(listeners(replace(SPEC, rest_port=0))) == {"grpc"}
    assert set(listeners(replace(SPEC, grpc_port=0, grpc_socket_path=""))) == {"rest"}
    alone = listeners(replace(SPEC, grpc_port=0))["grpc"]
    assert alone["address"] == {"pipe": {"path": "/run/grpc.sock"}}
    assert alone["additional_addresses"] == []


def test_tls_of_each_listener() -> None:
    found = listeners(replace(SPEC, grpc_tls=replace(TLS, client_verify=True), rest_tls=TLS))
    grpc, rest = (found[name]["filter_chains"][0]["transport_socket"]["typed_config"] for name in ("grpc", "rest"))
    assert grpc["require_client_certificate"] is True
    assert grpc["common_tls_context"]["validation_context"] == {"trusted_ca": {"inline_string": "CA"}}
    assert grpc["common_tls_context"]["alpn_protocols"] == ["h2"]
    assert rest["require_client_certificate"] is False
    assert "validation_context" not in rest["common_tls_context"]
    assert "transport_socket" not in listeners(SPEC)["grpc"]["filter_chains"][0]


def test_channel_arguments() -> None:
    arguments = {
        "grpc.max_concurrent_streams": "7",
        "grpc.max_connection_age_ms": "1500",
        "grpc.max_connection_idle_ms": "2147483647",
        "grpc.keepalive_time_ms": "x",
    }
    listener = listeners(replace(SPEC, grpc_arguments=arguments))["grpc"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http2_protocol_options"]["max_concurrent_streams"] == 7
    assert "connection_keepalive" not in manager["http2_protocol_options"]
    assert manager["common_http_protocol_options"]["max_connection_duration"] == "1.500s"
    assert manager["common_http_protocol_options"]["idle_timeout"] == "0s"


def test_a_connection_is_not_limited_unless_the_operator_says_so() -> None:
    manager = listeners(SPEC)["grpc"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http2_protocol_options"]["max_concurrent_streams"] == (1 << 31) - 1
    assert manager["common_http_protocol_options"]["max_connection_duration"] == "315360000s"


def test_a_message_of_a_client_may_come_in_one_frame() -> None:
    http2 = listeners(SPEC)["grpc"]["filter_chains"][0]["filters"][0]["typed_config"]["http2_protocol_options"]
    ((setting,),) = (http2["custom_settings_parameters"],)
    assert setting == {"identifier": 5, "value": 1 << 20}
    # Envoy takes a frame in as a whole: one that a stream may not have would never come to its end.
    assert setting["value"] < http2["initial_stream_window_size"] < http2["initial_connection_window_size"]


def test_a_client_has_so_much_waiting_at_the_most() -> None:
    assert {each["per_connection_buffer_limit_bytes"] for each in listeners(SPEC).values()} == {1 << 20}


def test_the_access_log_is_written_when_there_is_a_path() -> None:
    for spec, path in ((SPEC, None), (replace(SPEC, access_log="/log"), "/log")):
        for name, listener in listeners(spec).items():
            logs = listener["filter_chains"][0]["filters"][0]["typed_config"].get("access_log", [])
            assert [log["typed_config"]["path"] for log in logs] == ([path] if path else [])
            assert all(log["typed_config"]["log_format"]["json_format"]["api"] == name for log in logs)


def test_arguments_without_effect_are_known() -> None:
    arguments = {"grpc.max_metadata_size": "1", "grpc.max_concurrent_streams": "7", "no.such.argument": "x"}
    assert envoy_config.without_effect(arguments) == ["grpc.max_metadata_size", "no.such.argument"]


def test_admin_is_a_private_socket() -> None:
    assert bootstrap(SPEC, AROUND)["admin"] == {"address": {"pipe": {"path": "/run/a1", "mode": 0o600}}}


PATH = re.compile(envoy_config.UTF8_PATH, re.DOTALL)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="%?")))
def test_every_text_is_a_path(text: str) -> None:
    assert PATH.fullmatch("/" + "".join(f"%{byte:02x}" for byte in text.encode()))
    assert (PATH.fullmatch("/" + text + "?%ff") is not None) is all("!" <= each <= "~" for each in text)


@given(st.binary(max_size=6))
def test_what_is_no_utf8_is_none(raw: bytes) -> None:
    path = "".join(f"%{byte:02X}" for byte in raw)
    try:
        unquote_to_bytes(path).decode()
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert (PATH.fullmatch(path) is not None) is expected


@pytest.mark.parametrize(
    "path", ["/%", "/%g0", "/%c3", "/%ed%a0%80", "/%c0%80", "/%f4%90%80%80", "/\xff", "/\x00", "/ ", "/\x7f"]
)
def test_broken_ones(path: str) -> None:
    assert PATH.fullmatch(path) is None


def test_answers_that_nobody_reads_are_dropped_where_there_is_a_limit() -> None:
    overload = bootstrap(replace(SPEC, most_heap_bytes=1 << 30), AROUND)["overload_manager"]
    limits = [each["typed_config"].get("max_heap_size_bytes") for each in overload["resource_monitors"]]
    assert limits == [None, None, 4 << 30]
    (trigger,) = overload["actions"][-1]["triggers"]
    assert trigger["name"] == overload["resource_monitors"][-1]["name"]
    assert trigger["scaled"] == {"scaling_threshold": 0.25, "saturation_threshold": 1.0}
    without = bootstrap(SPEC, AROUND)["overload_manager"]
    assert (len(without["resource_monitors"]), len(without["actions"])) == (2, 1)
