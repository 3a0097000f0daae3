"""The flight recorder: what a reader finds after the writer has stopped anywhere."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire import flight_recorder
from modelpool.supervisor.wire.flight_recorder import CAPACITY, FlightRecorder


@pytest.fixture
def fd() -> Iterator[int]:
    made = flight_recorder.create("test")
    yield made
    os.close(made)


def test_a_new_one_is_empty(fd: int) -> None:
    assert flight_recorder.read(fd) == flight_recorder.Recording()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 2**40)), max_size=50))
def test_what_began_and_did_not_end_is_executing(steps: list[tuple[bool, int, int]]) -> None:
    fd = flight_recorder.create("test")
    writer = FlightRecorder(os.dup(fd))
    begun: list[tuple[int, int]] = []
    ended: list[int] = []
    for now_ns, (begins, request_id, size) in enumerate(steps, start=1):
        if begins or not begun:
            begun.append((writer.begin(7, request_id, 1, size, now_ns), request_id))
        else:
            entry, known = begun.pop(0)
            writer.end(entry, 13, now_ns)
            ended.append(known)
    recording = flight_recorder.read(fd)
    assert [flight.request_id for flight in recording.executing] == [request_id for _, request_id in begun]
    assert [flight.request_id for flight in recording.finished] == ended
    assert {flight.frontend for flight in recording.executing + recording.finished} <= {7}
    assert all(flight.ended_ns > flight.began_ns and flight.code == 13 for flight in recording.finished)
    writer.close()
    os.close(fd)


def test_the_newest_of_the_finished_are_kept(fd: int) -> None:
    writer = FlightRecorder(os.dup(fd))
    for number in range(3 * CAPACITY):
        writer.end(writer.begin(1, number, 2, 0, number), 0, number + 1)
    finished = flight_recorder.read(fd).finished
    assert [flight.request_id for flight in finished] == list(range(2 * CAPACITY, 3 * CAPACITY))


def test_more_than_the_capacity_at_a_time_is_refused(fd: int) -> None:
    writer = FlightRecorder(os.dup(fd))
    for number in range(CAPACITY):
        writer.begin(1, number, 1, 0, number)
    with pytest.raises(IndexError):
        writer.begin(1, CAPACITY, 1, 0, CAPACITY)
    assert len(flight_recorder.read(fd).executing) == CAPACITY


def test_it_outlives_a_writer_that_is_killed(fd: int) -> None:
    child = os.fork()
    if child == 0:
        writer = FlightRecorder(os.dup(fd))
        writer.end(writer.begin(3, 41, 1, 10, 1), 0, 2)
        writer.begin(3, 42, 1, 10, 3)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    recording = flight_recorder.read(fd)
    assert [flight.request_id for flight in recording.finished] == [41]
    assert [flight.request_id for flight in recording.executing] == [42]


@given(st.binary(max_size=100))
def test_last_words(words: bytes) -> None:
    fd = flight_recorder.create("test")
    writer = FlightRecorder(os.dup(fd))
    writer.leave(words)
    writer.end(writer.begin(1, 1, 1, 0, 1), 0, 2)
    assert flight_recorder.read(fd).last_words == words
    writer.close()
    os.close(fd)


@given(st.binary(min_size=1, max_size=4096), st.integers(0, 215_000))
def test_garbage_is_read_as_something(garbage: bytes, at: int) -> None:
    fd = flight_recorder.create("test")
    os.pwrite(fd, garbage, at)
    recording = flight_recorder.read(fd)
    assert len(recording.executing) + len(recording.finished) <= CAPACITY
    assert len(recording.last_words) <= flight_recorder.MAX_WORDS_BYTES
    os.ftruncate(fd, at)
    assert len(flight_recorder.read(fd).executing) <= CAPACITY
    os.close(fd)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=5), max_size=8))
def test_several_are_as_each_by_itself(groups: list[list[int]]) -> None:
    fds = [flight_recorder.create("test") for _ in range(2)]
    together, singly = (FlightRecorder(os.dup(fd)) for fd in fds)
    for now_ns, ids in enumerate(groups, start=1):
        entries = together.begin_several(7, ids, 1, 30, now_ns)
        one_by_one = [singly.begin(7, request_id, 1, 30, now_ns) for request_id in ids]
        assert flight_recorder.read(fds[0]) == flight_recorder.read(fds[1])
        if now_ns % 2:
            together.end_several(entries, 3, now_ns + 1)
            for entry in one_by_one:
                singly.end(entry, 3, now_ns + 1)
    assert flight_recorder.read(fds[0]) == flight_recorder.read(fds[1])
    for fd, writer in zip(fds, (together, singly), strict=True):
        writer.close()
        os.close(fd)
