"""What a worker says of the runs that it is at: the oldest counts, however many there are beside it."""

from modelpool.worker.control import Gauge


def test_of_several_runs_the_oldest_is_what_it_is_busy_with() -> None:
    now_s = 100.0
    gauge = Gauge(lambda: now_s)
    gauge.begin(1, 4)
    now_s = 103.0
    gauge.begin(2, 1)
    for third in range(10, 20):  # short ones beside them
        gauge.begin(third, 1)
        gauge.end(third)
    now_s = 105.0
    said = gauge.heartbeat()
    assert (said.busy_s, said.in_flight) == (5.0, 5)
    gauge.end(1)
    said = gauge.heartbeat()
    assert (said.busy_s, said.in_flight) == (2.0, 1)
    gauge.end(2)
    said = gauge.heartbeat()
    assert (said.busy_s, said.in_flight) == (0.0, 0)
