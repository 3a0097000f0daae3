"""What is made of a worker's death: its own last words, and what each frontend is told of it. Pure."""

import logging

from .commands import AnnounceDeath
from .exits import Exit
from .wire import codec
from .wire.frontend_messages import WorkerDied
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.status import InvalidArgument
from .wire.worker_messages import WorkerBroken, WorkerLoadFailed, WorkerNotStarted

log = logging.getLogger(__name__)


def last_words(exit_: Exit) -> WorkerLoadFailed | WorkerNotStarted | WorkerBroken | None:
    """Why a worker says it could not start, load its model, or go on; None when it said nothing of this kind."""
    if not exit_.recording.last_words:
        return None
    try:
        message = codec.decode(exit_.recording.last_words)
    except InvalidArgument as error:
        log.warning("last words ignored %s", fields(cause=exit_.cause, error=error.message))
        return None
    return message if isinstance(message, WorkerLoadFailed | WorkerNotStarted | WorkerBroken) else None


def told_to(frontend: Incarnation, death: AnnounceDeath) -> WorkerDied:
    """What one frontend is told of a death: its own requests among those that the worker was at."""
    executing, finished = (
        tuple(flight.request_id for flight in flights if flight.frontend == frontend)
        for flights in (death.recording.executing, death.recording.finished)
    )
    return WorkerDied(death.incarnation, death.cause, executing, finished)
