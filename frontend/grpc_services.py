"""All that is served on the gRPC port, put together: one table of handlers for whichever engine. In the event loop."""

from modelpool.supervisor.wire.frontend_spec import FrontendSpec

from . import health
from .core import Core
from .forward import OnFinished
from .grpc_handlers import MODEL_SERVICE, PREDICTION_SERVICE, Reload, ServingHandlers, tell_nobody
from .health import Health
from .profiler import ProfilerHandlers
from .reflection import Reflection


class GrpcServices:
    """Health, reflection and profiler answer when the spec asks for them, and are UNIMPLEMENTED otherwise."""

    def __init__(
        self,
        core: Core,
        reload: Reload,
        spec: FrontendSpec,
        profiler: ProfilerHandlers,
        on_finished: OnFinished = tell_nobody,
    ) -> None:
        self._core = core
        self.methods = ServingHandlers(core, reload, on_finished).methods
        services = [MODEL_SERVICE, PREDICTION_SERVICE]
        self._health: Health | None = None
        if spec.health:
            self._health = Health()
            self.methods |= self._health.methods
            services.append(health.SERVICE)
        self._reflection: Reflection | None = None
        if spec.reflection:
            self._reflection = Reflection(tuple(services))
            self.methods |= self._reflection.methods
        if spec.profiler:
            self.methods |= profiler.methods

    def routes_changed(self) -> None:
        """The core has other routes than before: tell those who watch the models' health."""
        if self._health is not None:
            self._health.routes_changed(self._core.routes.table)

    def leave(self) -> None:
        """Say not ready from now on, and serve as before."""
        if self._health is not None:
            self._health.leave()

    def drain(self) -> None:
        """End the streams that would last as long as their clients do."""
        if self._health is not None:
            self._health.drain()
        if self._reflection is not None:
            self._reflection.drain()
