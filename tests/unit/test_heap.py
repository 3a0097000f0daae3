"""Memory that malloc keeps is given back."""

import os
import threading
from pathlib import Path

from modelpool.supervisor.wire import heap
from tests.e2e.eventually import eventually

PIECE, PIECES = 60_000, 2_000


def anonymous_bytes() -> int:
    (line,) = [each for each in Path(f"/proc/{os.getpid()}/status").read_text().splitlines() if "RssAnon" in each]
    return int(line.split()[1]) * 1024


def trimmed() -> bool:
    return all(thread.name != "trim" for thread in threading.enumerate())


def test_what_lies_between_what_stays_is_given_back() -> None:
    heap.trim()
    eventually(trimmed, what="what other tests have left in the heap is given back")
    before = anonymous_bytes()
    pieces = [os.urandom(PIECE) for _ in range(PIECES)]
    stays = [pieces[at] for at in range(0, PIECES, 50)] + [pieces[-1]]
    assert anonymous_bytes() - before > PIECE * PIECES * 0.9
    del pieces
    heap.trim()
    eventually(lambda: anonymous_bytes() - before < PIECE * PIECES * 0.2, what="the memory is given back")
    assert all(len(piece) == PIECE for piece in stays)
    eventually(trimmed, what="the thread ends")
