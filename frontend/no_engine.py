"""The engine of a frontend that cannot have the one it was told to have: it says why when the ports are wanted."""

from modelpool.supervisor.wire.status import PoolError

from .bind_error import BindFailed


class NoEngine:
    """An `Engine` that only fails to bind."""

    name = "none"

    def __init__(self, reason: PoolError) -> None:
        self._reason = reason

    def bind(self) -> None:
        if isinstance(self._reason, BindFailed):
            raise self._reason
        raise BindFailed(f"frontend: cannot be envoy: {self._reason.message}")

    async def start(self) -> None:
        raise AssertionError("not bound")

    async def leave(self) -> None:
        """There is nobody to send away."""

    async def stop(self, grace_s: float) -> None:
        """There is nothing to stop."""

    def remove_socket(self) -> None:
        """There is no socket."""
