"""The bench's ZeroMQ with nothing at its ends: real sockets, and a process at the far end."""

from pathlib import Path

import bench_floor_zmq
import pytest
from bench_floor_zmq import Traffic


@pytest.mark.parametrize("traffic", [Traffic(1, 1, 60, 50), Traffic(4, 2, 60, 50), Traffic(8, 1, 600_000, 50, True)])
def test_an_exchange_says_what_a_request_takes(tmp_path: Path, traffic: Traffic) -> None:
    with bench_floor_zmq.running(tmp_path, traffic) as exchange:
        found = exchange.load(0.0, 0.02)
        again = exchange.load(0.0, 0.02)
    for figures in (found, again):
        assert figures["requests_per_s"] > 0
        assert figures["cpu_us"] > 0
        assert 0 < figures["p50_us"] <= figures["p99_us"]
