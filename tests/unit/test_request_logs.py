"""Which workers are told of a changed logging_config, and when."""

from modelpool.supervisor.request_logs import RequestLogs
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.worker_spec import RequestLog

ONE, TWO, THREE = Incarnation(1), Incarnation(2), Incarnation(3)
OLD, NEW = RequestLog(0.1, "/log/a", 1, 1), RequestLog(0.2, "/log/a", 1, 1)


def test_only_what_changed_is_told_and_once() -> None:
    logs = RequestLogs()
    for incarnation, model in ((ONE, "a"), (TWO, "b"), (THREE, "a")):
        logs.started(incarnation, model, {"a": OLD, "b": None}[model])
        logs.ready(incarnation)
    assert logs.due({"a": OLD, "b": None}.__getitem__) == []
    assert logs.due({"a": NEW, "b": None}.__getitem__) == [(ONE, NEW), (THREE, NEW)]
    assert logs.due({"a": NEW, "b": None}.__getitem__) == []
    assert logs.due({"a": None, "b": OLD}.__getitem__) == [(ONE, None), (TWO, OLD), (THREE, None)]


def test_a_worker_that_loads_is_told_when_it_is_ready() -> None:
    logs = RequestLogs()
    logs.started(ONE, "a", OLD)
    assert logs.due({"a": NEW}.__getitem__) == []
    logs.ready(ONE)
    assert logs.due({"a": NEW}.__getitem__) == [(ONE, NEW)]


def test_a_worker_that_is_gone_is_told_nothing() -> None:
    logs = RequestLogs()
    logs.started(ONE, "a", OLD)
    logs.ready(ONE)
    logs.exited(ONE)
    logs.ready(ONE)  # said before it died
    assert logs.due({"a": NEW}.__getitem__) == []
    logs.exited(TWO)  # one that was never started
