"""What a worker does to itself when `modelpool chaos` orders it. The control thread.

A poison request is one of a certain size: the flight recorder, by which every request passes as it begins to execute,
aborts the process at it. So the death takes the way of any request that crashes a model, and needs no special model.
"""

import logging
import os
import threading
import time

from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.states import Harm
from modelpool.supervisor.wire.worker_messages import HurtWorker

log = logging.getLogger(__name__)

_PIECE_MIB = 8
# Fast, and yet not so fast that the machine is out of memory before anybody has looked.
_OOM_MIB_PER_S = 500
_PAGE_BYTES = 4096


class Chaos:
    """Of one worker."""

    def __init__(self, flights: FlightRecorder) -> None:
        self._flights = flights

    def hurt(self, order: HurtWorker) -> None:
        """Do as the supervisor orders. Kill and stop are its own to do."""
        log.warning("hurting myself %s", fields(harm=order.harm, amount=order.amount))
        match order.harm:
            case Harm.POISON | Harm.CURE:
                self._flights.deadly_size_bytes = order.amount
            case Harm.OOM:
                self._take_memory(_OOM_MIB_PER_S)
            case Harm.LEAK:
                self._take_memory(order.amount)

    def _take_memory(self, mib_per_s: float) -> None:
        """In a thread of its own, so that requests and heartbeats go on until the end."""
        threading.Thread(target=_run_leak, args=(mib_per_s,), name="leak", daemon=True).start()


def _run_leak(mib_per_s: float) -> None:
    """Take pieces, and touch each page, until somebody ends it. Without memory a worker is as good as dead."""
    taken: list[bytearray] = []
    try:
        while True:
            piece = bytearray(_PIECE_MIB << 20)
            piece[::_PAGE_BYTES] = b"x" * (len(piece) // _PAGE_BYTES)
            taken.append(piece)
            time.sleep(_PIECE_MIB / mib_per_s)
    except MemoryError:
        os.abort()
