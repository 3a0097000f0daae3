"""Who hears of the requests of dead workers: metrics, the other frontends, the folder for replay. Event loop."""

from collections.abc import Callable

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import Quarantined

from .metrics import RequestMetrics
from .poison_files import PoisonFiles
from .settling import Fate


class CrashWitness:
    """See `in_flight.Witness`. `report` takes the news of a poison request to the supervisor."""

    def __init__(self, metrics: RequestMetrics, report: Callable[[Quarantined], None], files: PoisonFiles) -> None:
        self._metrics = metrics
        self._report = report
        self._files = files

    def settled(self, model: str, fate: Fate) -> None:
        self._metrics.settled(model, fate.value)

    def quarantine_refused(self, model: str) -> None:
        self._metrics.quarantine_refused(model)

    def poisoned(self, entry: Quarantined, method: Method, payload: bytes, poison_dir: str) -> None:
        self._report(entry)
        if poison_dir:
            self._files.keep(poison_dir, entry, method, payload)
