"""What each frontend must be told of the workers that have siblings: who else keeps them busy, and for how long. Pure.

Heartbeats and the frontends' statistics come in; one frontend's view goes out, as the answer to its own statistics.
"""

from collections.abc import Mapping

from .wire.frontend_messages import FrontendStats, WorkerLoads
from .wire.ids import Incarnation
from .wire.route_table import RouteTable
from .wire.worker_messages import WorkerHeartbeat


class ReplicaLoads:
    """What workers said last of the request that they are executing."""

    def __init__(self) -> None:
        self._busy_s: dict[Incarnation, float] = {}

    def heard(self, worker: Incarnation, heartbeat: WorkerHeartbeat) -> None:
        self._busy_s[worker] = heartbeat.busy_s if heartbeat.in_flight else 0.0

    def ended(self, worker: Incarnation) -> None:
        self._busy_s.pop(worker, None)

    def view(
        self, frontend: Incarnation, stats: Mapping[Incarnation, FrontendStats | None], table: RouteTable
    ) -> WorkerLoads | None:
        """For this frontend, given what all of them said last; None when no worker has a sibling."""
        replicas = {
            worker.incarnation
            for model in table.models
            for version in model.versions
            if len(version.workers) > 1
            for worker in version.workers
        }
        if not replicas:
            return None
        others = [said.in_flight for name, said in stats.items() if name != frontend and said is not None]
        return WorkerLoads(
            {worker: sum(in_flight.get(worker, 0) for in_flight in others) for worker in replicas},
            {worker: self._busy_s.get(worker, 0.0) for worker in replicas},
        )
