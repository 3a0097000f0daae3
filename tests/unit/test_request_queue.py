"""Requests that wait for the model: their order, their bound, and the ways out other than being executed."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.worker.request_queue import Request, RequestQueue


def request(frontend: int, request_id: int, deadline_ns: int = NO_DEADLINE_NS, payload: bytes = b"") -> Request:
    return Request(b"", frontend, request_id, deadline_ns, 1, 2, Method.PREDICT, False, payload)


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


@given(st.lists(st.tuples(st.sampled_from(("put", "take", "cancel", "drop")), st.integers(0, 9), st.integers(0, 40))))
def test_it_holds_so_many_bytes_and_no_more_but_for_a_single_request(steps: list[tuple[str, int, int]]) -> None:
    queue = RequestQueue(1000, 50)
    model: dict[int, int] = {}
    for what, number, size in steps:
        if what == "put":
            fits = number not in model and (not model or sum(model.values()) + size * 2 <= 50)
            assert queue.put(request(number % 2, number, payload=bytes(size * 2))) == fits
            if fits:
                model[number] = size * 2
        elif what == "take":
            first = queue.take()
            assert (first.request_id if first is not None else None) == next(iter(model), None)
            if first is not None:
                del model[first.request_id]
        elif what == "cancel":
            assert queue.cancel(number % 2, number) == (model.pop(number, None) is not None)
        else:
            assert queue.drop_frontend(number % 2) == sum(each % 2 == number % 2 for each in model)
            model = {each: size for each, size in model.items() if each % 2 != number % 2}
    assert len(queue) == len(model)
