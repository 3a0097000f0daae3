"""Requests that wait for the model: their order, their bound, and the ways out other than being executed."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.worker.request_queue import Request, RequestQueue


def request(frontend: int, request_id: int, deadline_ns: int = NO_DEADLINE_NS) -> Request:
    return Request(b"", frontend, request_id, deadline_ns, 1, 2, Method.PREDICT, False, b"")


def taken(queue: RequestQueue) -> list[tuple[int, int]]:
    found = []
    while (each := queue.take()) is not None:
        found.append((each.frontend, each.request_id))
    return found


def test_deadlines() -> None:
    assert not request(1, 1).expired(1 << 62)
    assert not request(1, 1, 100).expired(100)
    assert request(1, 1, 100).expired(101)


def test_a_full_queue_and_a_repeated_id() -> None:
    queue = RequestQueue(2)
    assert queue.put(request(1, 1))
    assert not queue.put(request(1, 1))
    assert queue.put(request(2, 1))
    assert not queue.put(request(3, 1)), "full"
    assert queue.cancel(1, 1)
    assert queue.put(request(3, 1))
    assert taken(queue) == [(2, 1), (3, 1)]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["put", "cancel", "drop", "take"]), st.integers(1, 3), st.integers(1, 4)), max_size=60
)


@given(ACTIONS)
def test_as_a_plain_list_would(actions: Sequence[tuple[str, int, int]]) -> None:
    queue, model = RequestQueue(5), list[tuple[int, int]]()
    for action, frontend, number in actions:
        key = (frontend, number)
        if action == "put":
            fits = len(model) < 5 and key not in model
            assert queue.put(request(*key)) == fits
            model += [key] * fits
        elif action == "cancel":
            assert queue.cancel(*key) == (key in model)
            model = [each for each in model if each != key]
        elif action == "drop":
            assert queue.drop_frontend(frontend) == sum(each[0] == frontend for each in model)
            model = [each for each in model if each[0] != frontend]
        else:
            first = queue.take()
            assert (first and (first.frontend, first.request_id)) == (model.pop(0) if model else None)
        assert len(queue) == len(model)
    assert taken(queue) == model
