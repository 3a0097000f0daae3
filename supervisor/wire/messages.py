"""The control plane: every message between the supervisor and its frontends and workers, as frozen data.

They are defined by who speaks to whom: `worker_messages`, `frontend_messages` with `route_table`, `client_messages`,
`metric_messages`, and what a process is started with, `worker_spec` and `frontend_spec`. The supervisor's ROUTER tells
peers apart by their identity, which carries the incarnation (see `sockets`); a message therefore names an incarnation
only where it speaks of somebody else.
"""

from typing import get_args

from .client_messages import FromClient, ToClient
from .frontend_messages import FromFrontend, ToFrontend
from .frontend_spec import FrontendSpec
from .metric_messages import MetricMessage
from .worker_messages import FromWorker, ToWorker
from .worker_spec import WorkerSpec

Message = (
    WorkerSpec
    | FrontendSpec
    | FromWorker
    | ToWorker
    | FromFrontend
    | ToFrontend
    | FromClient
    | ToClient
    | MetricMessage
)

MESSAGE_TYPES: dict[str, type] = {cls.__name__: cls for cls in get_args(Message)}
