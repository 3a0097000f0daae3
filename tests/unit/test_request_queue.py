"""Requests that wait for the model: their order, their bound, and the ways out other than being executed."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.worker.request_queue import Request, RequestQueue, Unopened


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
    st.tuples(
        st.sampled_from(["put", "unopened", "run", "cancel", "drop", "take"]), st.integers(1, 3), st.integers(1, 4)
    ),
    max_size=60,
)


def together(frontend: int, *request_ids: int) -> bytes:
    heads = [data.pack_request(each, NO_DEADLINE_NS, 1, Method.PREDICT) for each in request_ids]
    return data.several_requests([(head, bytes(frontend)) for head in heads])[1]


def unopened(queue: RequestQueue, frontend: int, raw: bytes) -> bool:
    return queue.put_unopened(Unopened(raw, b"", frontend, 2), data.count_predicts(raw))


@given(ACTIONS)
def test_as_a_plain_list_would(actions: Sequence[tuple[str, int, int]]) -> None:
    queue, model, ids = RequestQueue(5), list[tuple[int, int]](), itertools.count(100)
    for action, frontend, number in actions:
        key = (frontend, number)
        if action == "put":
            fits = len(model) < 5 and key not in model
            assert queue.put(request(*key)) == fits
            model += [key] * fits
        elif action == "unopened":
            new = [(frontend, next(ids)) for _ in range(number)]
            fits = len(model) + number <= 5
            assert unopened(queue, frontend, together(frontend, *(each for _, each in new))) == fits
            model += new * fits
        elif action == "run":
            message = queue.unopened
            if message is not None:
                assert model.pop(0) == (message.frontend, message.first()[0].request_id)
                size = int.from_bytes(message.raw[message.at : message.at + 4], "little")
                queue.took_unopened(message.at + data.REQUEST_HEAD_BYTES + size)
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


class Bytes:
    """What a queue of 150 bytes must do, and what it does. What is not opened counts with its head."""

    def __init__(self) -> None:
        self.queue = RequestQueue(1000, 150)
        self.sizes: dict[int, int] = {}
        self.closed: set[int] = set()

    @property
    def left(self) -> int:
        return 150 - sum(self.sizes.values()) - data.REQUEST_HEAD_BYTES * len(self.closed)

    def put(self, number: int, size: int) -> None:
        if number in self.closed:  # no frontend gives an id twice
            return
        fits = number not in self.sizes and (not self.sizes or size <= self.left)
        assert self.queue.put(request(number % 2, number, payload=bytes(size))) == fits
        if fits:
            self.sizes[number] = size

    def unopened(self, number: int, size: int) -> None:
        if number in self.sizes:
            return
        head = data.pack_request(number, NO_DEADLINE_NS, 1, Method.PREDICT)
        fits = data.REQUEST_HEAD_BYTES + size <= self.left
        assert unopened(self.queue, number % 2, data.several_requests([(head, bytes(size))])[1]) == fits
        if fits:
            self.sizes[number] = size
            self.closed.add(number)

    def take(self, number: int, size: int) -> None:
        first = self.queue.take()
        wanted = next(iter(self.sizes), None)
        assert (first.request_id if first is not None else None) == wanted
        if wanted is not None:
            del self.sizes[wanted]
            self.closed.discard(wanted)

    def cancel(self, number: int, size: int) -> None:
        assert self.queue.cancel(number % 2, number) == (self.sizes.pop(number, None) is not None)
        self.closed.clear()

    def drop(self, number: int, size: int) -> None:
        left = {each: size for each, size in self.sizes.items() if each % 2 != number % 2}
        assert self.queue.drop_frontend(number % 2) == len(self.sizes) - len(left)
        self.sizes = left
        self.closed.clear()

    def fill(self, number: int, size: int) -> None:
        """Just what there is room for, and no more."""
        if self.sizes and self.left >= 0:
            assert not self.queue.put(request(3, 77, payload=bytes(self.left + 1)))
            assert self.queue.put(request(3, 77, payload=bytes(self.left)))
            assert self.queue.cancel(3, 77)
            self.closed.clear()


STEPS = ("put", "unopened", "take", "cancel", "drop", "fill")


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 80))))
def test_it_holds_so_many_bytes_and_no_more_but_for_a_single_request(steps: list[tuple[str, int, int]]) -> None:
    desk = Bytes()
    for what, number, size in steps:
        getattr(desk, what)(number, size)
        assert len(desk.queue) == len(desk.sizes)


class Counted(Unopened):
    """Says how many were opened."""

    opened = 0

    def first(self) -> tuple[Request, int]:
        Counted.opened += 1
        return super().first()


def test_cancels_that_come_again_and_again_open_each_once() -> None:
    """As where a model is late, and each look brings some more, and their cancels."""
    queue = RequestQueue(10_000)
    for number in range(1000):
        raw = together(1, number)
        assert queue.put_unopened(Counted(raw, b"", 1, 2), 1)
        before = queue._line[0]
        assert not queue.cancel(1, 5000)
        assert number == 0 or queue._line[0] is before, "what is single already stays as it is"
    assert (Counted.opened, len(queue)) == (1000, 1000)


def test_only_whole_messages_of_predict_are_counted() -> None:
    good = together(1, 1, 2)
    cancel = data.several_requests([(data.pack_cancel(1), b"")])[1]
    assert [data.count_predicts(raw) for raw in (b"", good[:-1], good + b"x", good + cancel, cancel)] == [0] * 5
    assert data.count_predicts(good) == 2


def test_what_comes_single_leaves_what_is_around_it_unopened() -> None:
    queue = RequestQueue(10)
    for number in (1, 3, 5):
        assert unopened(queue, 1, together(1, number))
        assert queue.put(request(1, number + 1))
    for number in (1, 3, 5):
        message = queue.unopened
        assert message is not None
        assert message.first()[0].request_id == number
        queue.took_unopened(message.first()[1])
        assert queue.unopened is None
        single = queue.take()
        assert single is not None
        assert single.request_id == number + 1


def test_an_id_that_comes_twice_unopened_waits_once_it_is_opened() -> None:
    queue = RequestQueue(10, 1000)
    assert unopened(queue, 1, together(1, 1, 2))
    assert unopened(queue, 1, together(1, 2))
    assert not queue.cancel(1, 7)
    assert taken(queue) == [(1, 1), (1, 2)]
    assert queue.put(request(1, 1, payload=bytes(1000)))
    assert not queue.put(request(1, 2, payload=b"x")), "as many bytes as it may have"


def test_bytes_of_what_waits_unopened_count_until_it_is_taken() -> None:
    raw = together(3, 1, 2)
    queue = RequestQueue(10, 2 * len(raw))
    assert unopened(queue, 3, raw)
    assert unopened(queue, 3, together(3, 3, 4))
    assert not unopened(queue, 3, together(3, 5))
    for _ in range(4):
        message = queue.unopened
        assert message is not None
        queue.took_unopened(message.first()[1])
    assert queue.unopened is None
    assert queue.put(request(1, 1, payload=bytes(2 * len(raw))))
    queue.take()
    assert unopened(queue, 3, raw)
    assert taken(queue) == [(3, 1), (3, 2)], "opened"
    assert queue.put(request(1, 2, payload=bytes(2 * len(raw))))
    assert not queue.put(request(1, 3, payload=b"x"))
