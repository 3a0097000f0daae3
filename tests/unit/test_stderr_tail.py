"""A worker's standard error: the end is kept, lines are passed on, and not more of them than the log bears."""

import asyncio
import os

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor import stderr_tail
from modelpool.supervisor.stderr_tail import Allowance, StderrTail


def written(*pieces: bytes) -> tuple[str, bytes]:
    """What is kept, and what is passed on, of a worker that writes these pieces and ends."""

    async def scene() -> tuple[str, bytes]:
        passed: list[bytes] = []
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        tail = StderrTail(asyncio.get_running_loop(), reading, "worker[m/1#7]", passed.append)
        for piece in pieces:
            os.write(writing, piece)
            await asyncio.sleep(0)
        os.close(writing)
        return tail.end(), b"".join(passed)

    return asyncio.run(scene())


def test_lines_are_passed_on_with_the_worker_s_name() -> None:
    kept, passed = written(b"one\ntw", b"o\n", b"12:00 I worker[m/1#7] core: ready\nunfinished")
    assert kept == "one\ntwo\n12:00 I worker[m/1#7] core: ready\nunfinished"
    assert passed.decode().splitlines() == [
        "worker[m/1#7] | one",
        "worker[m/1#7] | two",
        "12:00 I worker[m/1#7] core: ready",
        "worker[m/1#7] | unfinished",
    ]


def test_a_flood_is_cut_and_its_end_is_kept() -> None:
    kept, passed = written(*[b"x" * 30 + b"\n"] * 1000, b"the end\n")
    assert kept.endswith("the end\n")
    lines = passed.splitlines()
    assert len(lines) < 300
    assert b"lines not shown" in lines[-1]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bytes_will_do(pieces: list[bytes]) -> None:
    kept, _ = written(*pieces)
    assert kept == b"".join(pieces).decode("utf-8", "replace")


def test_a_line_without_end_is_cut() -> None:
    kept, passed = written(*[b"z" * 8192] * 12)
    assert len(kept) == stderr_tail.KEPT_BYTES
    assert passed.count(b"\n") > 3


def test_an_allowance_grows_with_time_up_to_its_most() -> None:
    allowance = Allowance(most=10, per_s=2)
    assert allowance.take(10, 0.0)
    assert not allowance.take(1, 0.4)
    assert allowance.take(1, 0.5)
    assert not allowance.take(11, 1000.0)
    assert allowance.take(10, 1000.0)
