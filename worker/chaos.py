"""What a worker does to itself when `modelpool chaos` orders it. The control thread.

A poison request is one of a certain size: the flight recorder, by which every request passes as it begins to execute,
aborts the process at it. So the death takes the way of any request that crashes a model, and needs no special model.
"""

import logging

from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import HurtWorker
from modelpool.supervisor.wire.states import Harm

log = logging.getLogger(__name__)


class Chaos:
    """Of one worker."""

    def __init__(self, flights: FlightRecorder) -> None:
        self._flights = flights

    def hurt(self, order: HurtWorker) -> None:
        """Do as the supervisor orders. Kill and stop are its own to do."""
        log.warning("hurting myself %s", fields(harm=order.harm, amount=order.amount))
        if order.harm in {Harm.POISON, Harm.CURE}:
            self._flights.deadly_size_bytes = order.amount
