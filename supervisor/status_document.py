"""The status document of the pool that runs, put together from its parts. Event loop only.

What it says of models, workers and devices is made by `status`; what the supervisor says of itself is added here.
"""

import asyncio
from dataclasses import asdict

from . import status
from .chaos import Chaos
from .config import PoolConfig
from .configuration import Configuration
from .crashes import Crashes
from .frontends import Frontends
from .manager import Manager
from .process import Processes


class StatusDocument:
    """That of one pool, as it is whenever it is asked for."""

    def __init__(
        self,
        config: PoolConfig,
        manager: Manager,
        processes: Processes,
        frontends: Frontends,
        *,
        configuration: Configuration,
        chaos: Chaos,
        crashes: Crashes,
    ) -> None:
        self._config = config
        self._manager = manager
        self._processes = processes
        self._frontends = frontends
        self._configuration = configuration
        self._chaos = chaos
        self._crashes = crashes
        self._loop = asyncio.get_running_loop()

    def to_json(self) -> bytes:
        """The whole document."""
        frontends = {
            incarnation: (frontend.pid, frontend.stats) for incarnation, frontend in self._frontends.alive.items()
        }
        supervisor = {
            "serving": self._frontends.listening,
            "fork_server_pid": self._processes.fork_server_pid,
            "frontend_restarts": self._frontends.restarts,
            "allow_chaos": self._chaos.allowed,
            "configuration_errors": {
                flag: {"code": error.code.name, "message": error.message}
                for flag, error in self._configuration.errors.items()
            },
            "runtime_dir": str(self._config.runtime_dir),
            "crash_dir": str(self._crashes.directory),
            "crash_reports_lost": self._crashes.lost,
            "shared_memory": asdict(self._processes.shared_memory),
            **self._config.listening(),
        }
        return status.to_json(status.pool_status(self._manager, frontends, supervisor, self._loop.time()))
