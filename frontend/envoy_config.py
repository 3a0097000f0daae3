"""The configuration of the Envoy that a frontend becomes, from its spec. Pure: a document in, nothing done.

One listener for gRPC (TCP port and unix socket) and one for REST. Both end in pyvoy's filter, which hands each request
to our ASGI applications in the same process. Envoy adds and changes as little as it can: no paths made neat, no
headers of its own but `date`. There is no admin port, but a socket in the pool's private directory, for the drain.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpool.supervisor.wire.frontend_spec import FrontendSpec, Tls

Document = dict[str, Any]

APP_MODULE = "modelpool.frontend.envoy_app"
GRPC_STATS, REST_STATS = LISTENERS = ("grpc", "rest")
# Gauges of the two listeners: requests and bytes that have not left this process yet, and connections.
RUNNING, UNSENT = "downstream_rq_active", "downstream_cx_tx_bytes_buffered"
CONNECTED = "downstream_cx_active"
# A gauge of the process: what the access log has not got yet.
UNWRITTEN = "filesystem.write_total_buffered"
GAUGES = (RUNNING, UNSENT, CONNECTED, UNWRITTEN)

_TYPE = "type.googleapis.com/envoy.extensions."
# What a client may send before we have read it: per stream, and per connection. Big tensors come in few turns.
_STREAM_WINDOW_BYTES = 16 << 20
_CONNECTION_WINDOW_BYTES = 64 << 20
# The biggest frame of HTTP/2 that a client may send. A message in one frame reaches Python by one event, not by one for
# each 16 KiB of it. But no bigger, for nothing else comes through its connection meanwhile.
_FRAME_BYTES = 1 << 20
_MAX_FRAME_SIZE = 5  # RFC 9113, 6.5.2
# What may wait in this process for a connection, either way. A body is taken in as it comes, so much at a time: more
# would be out of the CPU's cache before it is looked at, and with less a message seldom comes as a whole. The next
# request of a REST client is not read while it leaves so much unread; the answers of gRPC have windows of their own.
_BUFFER_BYTES = 1 << 20
_BACKLOG = 4096
_RELEASED_BYTES = 256 << 20
# What Envoy's allocator may keep of freed memory, for each CPU: so much for all of them, as it has it for threads, but
# no more than what bodies of some requests take.
_CACHED_BYTES, _MOST_CACHED_BYTES = 32 << 20, 8 << 20
_REST_KEEP_ALIVE_S = 120
_MAX_HEADERS = 1000
# gRPC's clients may have any number of calls and read none of the answers, which then wait here. While the heap is over
# its limit, calls that hold the most are reset, some at each look that finds it changed. So the scale goes far beyond
# the limit: at its end nothing would change. At its begin are those that hold 2**7 times as much as is looked at.
_HEAP = "envoy.resource_monitors.fixed_heap"
_SCALE = 4
_UNREAD_BYTES_BITS = 10
# A connection lasts as long as its client likes, until the drain: then this timer is cut to next to nothing.
_FOREVER = "315360000s"
_DRAIN_TIMER = {"timer": "HTTP_DOWNSTREAM_CONNECTION_MAX", "min_timeout": "0.001s"}
_LOOK = "0.05s"
# pyvoy cannot answer a path that is no UTF-8, as it came or with its percent signs resolved: it ends the process. So
# Envoy does. As it comes a path has ASCII only (RFC 3986).
_CONTINUED = "%[89ab][0-9a-f]"
UTF8_PATH = (
    "(?i)(?:[!-$&->@-~]"
    "|%[0-7][0-9a-f]"
    f"|%(?:c[2-9a-f]|d[0-9a-f]){_CONTINUED}"
    f"|%e0%[ab][0-9a-f]{_CONTINUED}"
    f"|%e[1-9a-cef](?:{_CONTINUED}){{2}}"
    f"|%ed%[89][0-9a-f]{_CONTINUED}"
    f"|%f0%[9ab][0-9a-f](?:{_CONTINUED}){{2}}"
    f"|%f[1-3](?:{_CONTINUED}){{3}}"
    f"|%f4%8[0-9a-f](?:{_CONTINUED}){{2}}"
    r")*(?:\?.*)?"
)
_RUNTIME = {
    "re2.max_program_size.error_level": 500,
    # Envoy takes a client for an attacker that resets most of 500 streams soon after it has opened them, and closes its
    # connection. But that is what gRPC clients do at their deadlines when a model is busy.
    "overload.premature_reset_total_stream_count": (1 << 32) - 1,
}
# Those that are read here, in `grpc_frames` and in `grpc_compression`; the port is always shared.
_ARGUMENTS = {
    f"grpc.{name}"
    for name in (
        *("max_receive_message_length", "default_compression_algorithm", "max_concurrent_streams", "so_reuseport"),
        *("max_connection_idle_ms", "max_connection_age_ms", "keepalive_time_ms", "keepalive_timeout_ms"),
    )
}
# As many calls on a connection, and answers that a client is yet to read, as gRPC's own servers allow.
_UNLIMITED = (1 << 31) - 1
_MAX_CONTROL_FRAMES = 1 << 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine says. `pyvoy_module`: pyvoy's shared library; `drain_path`: the file that says when to drain;
    `ipv6`: there are such addresses; `cpus`: how many there are.
    """

    pyvoy_module: str
    admin_path: str
    drain_path: str
    max_connections: int
    ipv6: bool
    cpus: int


def without_effect(arguments: Mapping[str, str]) -> list[str]:
    """The channel arguments that gRPC's own server may know and an Envoy does not act on."""
    return sorted(set(arguments) - _ARGUMENTS)


def bootstrap(spec: FrontendSpec, around: Surroundings) -> Document:
    """Envoy's bootstrap configuration, to be written as JSON. It holds the keys of TLS."""
    listeners = []
    if spec.grpc_port or spec.grpc_socket_path:
        listeners.append(_grpc_listener(spec, around))
    if spec.rest_port:
        listeners.append(_rest_listener(spec, around))
    return {
        "admin": {"address": {"pipe": {"path": around.admin_path, "mode": 0o600}}},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"suffix": name} for name in GAUGES]}}},
        "layered_runtime": {"layers": [{"name": "ours", "static_layer": _RUNTIME}]},
        # What big requests have taken goes back to the system.
        "memory_allocator_manager": {
            "bytes_to_release": _RELEASED_BYTES,
            "memory_release_interval": "1s",
            "max_per_cpu_cache_size_bytes": min(_MOST_CACHED_BYTES, _CACHED_BYTES // max(1, around.cpus)),
        },
        "overload_manager": _overload_manager(around, spec.most_heap_bytes),
        "static_resources": {"listeners": listeners},
    }


def _overload_manager(around: Surroundings, most_heap_bytes: int) -> Document:
    """What is done when there is too much of something: connections, memory. And the pressure in a file of ours is how
    an Envoy can be told to send each client away, idle or not: GOAWAY on HTTP/2, the end of the connection after its
    answer on HTTP/1.
    """
    injected = "resource_monitors.injected_resource.v3.InjectedResourceConfig"
    name = "envoy.resource_monitors.injected_resource"
    document: Document = {
        "refresh_interval": _LOOK,
        "resource_monitors": [
            _connection_limit(around.max_connections),
            {"name": name, "typed_config": {"@type": f"{_TYPE}{injected}", "filename": around.drain_path}},
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": name, "threshold": {"value": 1.0}}],
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                    "timer_scale_factors": [_DRAIN_TIMER],
                },
            }
        ],
    }
    if most_heap_bytes:
        _drop_unread(document, most_heap_bytes)
    return document


def _drop_unread(manager: Document, most_heap_bytes: int) -> None:
    kind = "resource_monitors.fixed_heap.v3.FixedHeapConfig"
    limit = {"@type": f"{_TYPE}{kind}", "max_heap_size_bytes": _SCALE * most_heap_bytes}
    over = {"scaling_threshold": 1 / _SCALE, "saturation_threshold": 1.0}
    name = "envoy.overload_actions.reset_high_memory_stream"
    manager["buffer_factory_config"] = {"minimum_account_to_track_power_of_two": _UNREAD_BYTES_BITS}
    manager["resource_monitors"].append({"name": _HEAP, "typed_config": limit})
    manager["actions"].append({"name": name, "triggers": [{"name": _HEAP, "scaled": over}]})


def _connection_limit(count: int) -> Document:
    """Descriptors are kept for the frontend's own sockets, whatever clients do."""
    kind = "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": f"{_TYPE}{kind}", "max_active_downstream_connections": count},
    }


def _grpc_listener(spec: FrontendSpec, around: Surroundings) -> Document:
    addresses = []
    if spec.grpc_port:
        addresses.append(_tcp(spec.grpc_port, around))
    if spec.grpc_socket_path:
        addresses.append({"pipe": {"path": spec.grpc_socket_path}})
    arguments = spec.grpc_arguments
    options: Document = {
        "idle_timeout": _ms(arguments, "grpc.max_connection_idle_ms") or "0s",
        "max_connection_duration": _ms(arguments, "grpc.max_connection_age_ms") or _FOREVER,
    }
    http2: Document = {
        "initial_stream_window_size": _STREAM_WINDOW_BYTES,
        "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
        "custom_settings_parameters": [{"identifier": _MAX_FRAME_SIZE, "value": _FRAME_BYTES}],
        "override_stream_error_on_invalid_http_message": True,
        "max_concurrent_streams": _integer(arguments, "grpc.max_concurrent_streams") or _UNLIMITED,
        "max_outbound_frames": _UNLIMITED,
        "max_outbound_control_frames": _MAX_CONTROL_FRAMES,
    }
    keepalive = _ms(arguments, "grpc.keepalive_time_ms")
    if keepalive:
        timeout = _ms(arguments, "grpc.keepalive_timeout_ms") or "20s"
        http2["connection_keepalive"] = {"interval": keepalive, "timeout": timeout}
    manager = {
        **_access_log(GRPC_STATS, spec.access_log),
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
        "common_http_protocol_options": {**options, "max_headers_count": _MAX_HEADERS},
    }
    return _listener(GRPC_STATS, addresses, _manager(GRPC_STATS, around, manager), _tls(spec.grpc_tls, "h2"))


def _rest_listener(spec: FrontendSpec, around: Surroundings) -> Document:
    malformed = "Malformed request: %REQ(:METHOD)% %REQ(:PATH)%"
    manager = {
        **_access_log(REST_STATS, spec.access_log),
        "codec_type": "HTTP1",
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": "localhost",
            # An offer to go on by another protocol is declined. Else what follows the head would be of that one.
            "ignore_http_11_upgrade": [{"safe_regex": {"regex": ".*"}}],
        },
        "common_http_protocol_options": {
            "idle_timeout": f"{_REST_KEEP_ALIVE_S}s",
            "max_connection_duration": _FOREVER,
            "max_headers_count": _MAX_HEADERS,
        },
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {
                        "status_code_filter": {
                            "comparison": {"op": "EQ", "value": {"default_value": 403, "runtime_key": "none"}}
                        }
                    },
                    "status_code": 400,
                    "body_format_override": {"json_format": {"error": malformed}},
                }
            ]
        },
    }
    return _listener(
        REST_STATS,
        [_tcp(spec.rest_port, around)],
        _manager(REST_STATS, around, manager),
        _tls(spec.rest_tls, "http/1.1"),
    )


def _tcp(port: int, around: Surroundings) -> Document:
    if around.ipv6:
        return {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}}
    return {"socket_address": {"address": "0.0.0.0", "port_value": port}}  # noqa: S104 - as TF Serving


def _listener(name: str, addresses: list[Document], manager: Document, tls: Document | None) -> Document:
    chain: Document = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = tls
    return {
        "name": name,
        "address": addresses[0],
        "additional_addresses": [{"address": address} for address in addresses[1:]],
        "filter_chains": [chain],
        "tcp_backlog_size": _BACKLOG,
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
    }


def _manager(name: str, around: Surroundings, of_protocol: Document) -> Document:
    """An HttpConnectionManager that ends in the application of this name."""
    app = {"app": f"{APP_MODULE}:{name}", "interface": "asgi", "lifespan": False, "loop": "asyncio"}
    pyvoy = {
        "@type": f"{_TYPE}filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "dynamic_module_config": {"module": {"local": {"filename": around.pyvoy_module}}},
        "filter_name": "pyvoy",
        "terminal_filter": True,
        "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(app)},
    }
    return {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": 96,
        # How long a request takes is for its deadline to say.
        "stream_idle_timeout": "0s",
        "drain_timeout": "0.05s",
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"]}]},
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": _only_utf8_paths()},
            {"name": "pyvoy", "typed_config": pyvoy},
        ],
        **of_protocol,
    }


def _access_log(name: str, path: str) -> Document:
    """A line of JSON for each request. What there is none of is null."""
    if not path:
        return {}
    line = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "api": name,
        "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "http_status": "%RESPONSE_CODE%",
        "request_bytes": "%BYTES_RECEIVED%",
        "reply_bytes": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "user_agent": "%REQ(USER-AGENT)%",
        "flags": "%RESPONSE_FLAGS%",
    }
    if name == GRPC_STATS:
        line["grpc_status"] = "%GRPC_STATUS(SNAKE_STRING)%"
    file = {
        "@type": f"{_TYPE}access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": {"json_format": line},
    }
    return {"access_log": [{"name": "envoy.access_loggers.file", "typed_config": file}]}


def _only_utf8_paths() -> Document:
    utf8 = {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": UTF8_PATH}}}}
    return {
        "@type": f"{_TYPE}filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {"utf8": {"permissions": [utf8], "principals": [{"any": True}]}},
        },
    }


def _tls(tls: Tls | None, protocol: str) -> Document | None:
    """TF Serving's SSLConfig: without `client_verify` no certificate is asked for, whatever `custom_ca` holds."""
    if tls is None:
        return None
    pair = {
        "private_key": {"inline_string": tls.server_key},
        "certificate_chain": {"inline_string": tls.server_cert},
    }
    common: Document = {"tls_certificates": [pair], "alpn_protocols": [protocol]}
    if tls.client_verify:
        common["validation_context"] = {"trusted_ca": {"inline_string": tls.custom_ca}}
    context = {
        "@type": f"{_TYPE}transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common,
        "require_client_certificate": tls.client_verify,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _integer(arguments: Mapping[str, str], key: str) -> int:
    """An argument's value; 0 where there is none, or none that is a number of 32 bits."""
    text = arguments.get(key, "").strip()
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    return value if value < 1 << 31 else 0


def _ms(arguments: Mapping[str, str], key: str) -> str:
    """A duration as Envoy writes it, "" for none. 2**31 - 1 is gRPC's way to say for ever."""
    value = _integer(arguments, key)
    return f"{value / 1000:.3f}s" if 0 < value < (1 << 31) - 1 else ""
