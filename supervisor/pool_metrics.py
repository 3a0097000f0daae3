"""What the supervisor itself knows of the pool, as metrics, and the page of everybody's. Event loop only.

Gauges are read from the manager when the page is asked for; what must be counted as it happens (restarts) is told
here.
"""

import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

from . import metrics_text
from .arenas import SharedMemory
from .exits import Exit, ExitKind, signal_name
from .frontends import Frontend
from .lifecycle import SlotState
from .manager import Manager
from .metrics import Labels, MetricsBook
from .servable import Slot
from .status import rss_bytes
from .wire import metric_families as families
from .wire.ids import Incarnation, SlotId
from .wire.metric_messages import MetricsReport
from .wire.metrics import Family, Registry
from .wire.sockets import Peer

_SELF = (Peer.CLIENT, Incarnation(0))


class PoolMetrics:
    """The metrics of one pool."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._book = MetricsBook()
        self._book.joined(_SELF)
        self._registry = Registry()
        self._causes: dict[SlotId, str] = {}
        self._executing: dict[Incarnation, int] = {}

    # -- what happens ------------------------------------------------------------------------------------------------

    def joined(self, peer: Peer, incarnation: Incarnation) -> None:
        """A process has said hello."""
        self._book.joined((peer, incarnation))

    def reported(self, peer: Peer, incarnation: Incarnation, report: MetricsReport) -> None:
        self._book.report((peer, incarnation), report.samples)

    def executing(self, worker: Incarnation, requests: int) -> None:
        """How many requests a worker says it is executing."""
        self._executing[worker] = requests

    def spawned(self, slot: SlotId, *, renewal: bool = False) -> None:
        """A worker is started; a restart if there was one before it that ended unasked, or that it is to replace."""
        cause = "renewal" if renewal else self._causes.pop(slot, None)
        if cause is not None:
            servable = slot.servable
            self._registry.counter(families.WORKER_RESTARTS, servable.name, str(servable.version), cause).add()

    def worker_ended(self, incarnation: Incarnation, exit_: Exit) -> None:
        """A worker's process is gone. To be told before the manager is."""
        self._book.ended((Peer.WORKER, incarnation))
        self._executing.pop(incarnation, None)
        slot = self._manager.workers.slot(incarnation)
        if slot is not None and slot.state is not SlotState.DRAINING and slot.replaces is None:
            self._causes[slot.id] = _cause(slot, exit_)

    def frontend_ended(self, incarnation: Incarnation) -> None:
        self._book.ended((Peer.FRONTEND, incarnation))

    # -- the page ----------------------------------------------------------------------------------------------------

    def page(
        self,
        frontends: Mapping[Incarnation, Frontend],
        restarts: int,
        fork_server_pid: int | None,
        shared: SharedMemory,
    ) -> bytes:
        """Everything as it is now, in Prometheus' text format."""
        servables = [servable for model in self._manager.models.values() for servable in model.newest_first()]
        self._book.retain(servable.id for servable in servables)
        known = {slot.id for servable in servables for slot in servable.slots}
        self._causes = {slot: cause for slot, cause in self._causes.items() if slot in known}
        self._book.report(_SELF, self._registry.changed())
        series = self._book.series()
        in_flight = _in_flight(frontends)
        gauges = [
            *(
                sample
                for servable in servables
                for slot in servable.slots
                if slot.replaces is None and slot.succeeded_by is None
                for sample in self._of_slot(slot, in_flight)
            ),
            *self._of_devices(slot for servable in servables for slot in servable.slots),
            *self._of_frontends(frontends),
            (families.FRONTEND_RESTARTS, (), restarts),
            (families.ROUTES_EPOCH, (), self._manager.board.table.epoch),
            (families.SUPERVISOR_MEMORY, (), rss_bytes(os.getpid())),
            (families.FORK_SERVER_MEMORY, (), rss_bytes(fork_server_pid)),
            (families.SHARED_MEMORY_USED, (), shared.used_bytes),
            (families.SHARED_MEMORY_RESERVED, (), shared.reserved_bytes),
            (families.SHARED_MEMORY_LIMIT, (), shared.limit_bytes),
            (families.BUILD_INFO, (_version(), platform.python_version()), 1),
        ]
        for family, labels, value in gauges:
            if value is not None:
                series[family.name][labels] = [float(value)]
        return metrics_text.page(series)

    def _of_slot(self, slot: Slot, in_flight: Mapping[int, int]) -> Iterable[tuple[Family, Labels, float | None]]:
        servable = slot.id.servable
        labels = (servable.name, str(servable.version), slot.id.device, str(slot.id.replica))
        yield families.WORKER_UP, labels, slot.state is SlotState.READY
        yield families.WORKER_STATE, (*labels, slot.state.value), 1
        yield families.WORKER_LOAD_SECONDS, labels, slot.load_s
        yield families.WORKER_WARMUP_SECONDS, labels, slot.warmup_s
        if slot.incarnation is None:
            return
        requests = in_flight.get(slot.incarnation, 0)
        yield families.WORKER_INCARNATION, labels, slot.incarnation
        yield families.WORKER_MEMORY, labels, rss_bytes(slot.pid)
        yield families.WORKER_IN_FLIGHT, labels, requests
        yield families.WORKER_QUEUE, labels, max(0, requests - self._executing.get(slot.incarnation, 0))

    def _of_devices(self, slots: Iterable[Slot]) -> Iterable[tuple[Family, Labels, float | None]]:
        """Figures of those alone that are known: not of the CPU, nor of a GPU that does not answer."""
        places = self._manager.places
        for room in places.rooms(slots):
            device, reading = room.device, places.inventory.readings.get(room.device.id)
            labels = (device.id,)
            yield families.DEVICE_UP, (device.id, device.cuda_visible_devices if device.is_gpu else ""), not room.lost
            yield families.DEVICE_WORKERS, labels, len(room.tenants)
            if not room.accounted:
                continue
            yield families.DEVICE_MEMORY, labels, device.memory_bytes
            yield families.DEVICE_MEMORY_CLAIMED, labels, sum(tenant.claim_bytes for tenant in room.tenants)
            if reading is not None and not reading.error:
                percent = reading.utilization_percent
                yield families.DEVICE_MEMORY_USED, labels, reading.used_bytes
                yield families.DEVICE_UTILIZATION, labels, None if percent is None else percent / 100
                yield families.DEVICE_ECC_ERRORS, labels, reading.ecc_errors

    def _of_frontends(self, frontends: Mapping[Incarnation, Frontend]) -> Iterable[tuple[Family, Labels, float | None]]:
        acked = self._manager.board.frontends
        for incarnation, frontend in frontends.items():
            labels = (str(incarnation),)
            yield families.FRONTEND_UP, labels, frontend.listening
            yield families.FRONTEND_MEMORY, labels, rss_bytes(frontend.pid)
            yield families.FRONTEND_ROUTES_EPOCH, labels, acked.get(incarnation, 0)


def _in_flight(frontends: Mapping[Incarnation, Frontend]) -> dict[int, int]:
    """Requests in flight by worker, over all frontends."""
    counts: dict[int, int] = {}
    for frontend in frontends.values():
        for worker, count in (frontend.stats.in_flight if frontend.stats is not None else {}).items():
            counts[worker] = counts.get(worker, 0) + count
    return counts


def _cause(slot: Slot, exit_: Exit) -> str:
    """Why a worker ended, in one of few words: an ExitKind, but for signals, which go by their names."""
    kind = slot.exit_kind(exit_)
    if kind is ExitKind.SIGNAL and exit_.signal is not None:
        return signal_name(exit_.signal).replace(" ", "_")
    return kind.value


def _version() -> str:
    try:
        return metadata.version("modelpool")
    except metadata.PackageNotFoundError:
        return ""
