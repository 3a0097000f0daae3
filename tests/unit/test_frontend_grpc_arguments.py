"""Channel arguments: which are numbers, and whose value counts."""

import pytest

from modelpool.frontend.grpc_arguments import server_options

MIB = 1 << 20


def test_ours_without_any_of_the_operator() -> None:
    assert dict(server_options(4 * MIB, {})) == {
        "grpc.max_receive_message_length": 4 * MIB,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 1,
    }


def test_no_limit_beyond_what_grpc_can_carry() -> None:
    assert dict(server_options(1 << 40, {}))["grpc.max_receive_message_length"] == (1 << 31) - 1


def test_the_operators_value_replaces_ours() -> None:
    options = server_options(MIB, {"grpc.max_receive_message_length": "5", "a": "b"})
    assert dict(options)["grpc.max_receive_message_length"] == 5
    assert len(options) == len(dict(options)) == 4


def test_the_port_is_always_shared_with_the_supervisor_that_holds_it() -> None:
    assert dict(server_options(MIB, {"grpc.so_reuseport": "0"}))["grpc.so_reuseport"] == 1


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        ("5", 5),
        ("-1", -1),
        ("+7", 7),
        (" 12 ", 12),
        ("007", 7),
        ("2147483647", 2147483647),
        ("-2147483648", -2147483648),
        ("2147483648", "2147483648"),
        ("-2147483649", "-2147483649"),
        ("9" * 5000, "9" * 5000),
        ("", ""),
        ("1.5", "1.5"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("٣", "٣"),
        ("gzip", "gzip"),
    ],
)
def test_what_looks_like_an_int_of_32_bits_is_one(value: str, typed: int | str) -> None:
    assert dict(server_options(MIB, {"key": value}))["key"] == typed
