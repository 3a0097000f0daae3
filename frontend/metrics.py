"""What a frontend counts: one call per finished request. In the event loop's thread.

TF Serving counts Predict, Classify and Regress over gRPC, and every REST call that it takes for one
(model_servers/prediction_service_impl.cc, http_rest_api_handler.cc); `modelpool_requests_total` counts all. Clients
choose model names, so their number is bounded: so many that no route has ever named, then they are one.
"""

from collections.abc import Callable
from time import monotonic_ns

from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.metric_messages import MetricSample
from modelpool.supervisor.wire.metrics import Counter, Histogram, Registry
from modelpool.supervisor.wire.status import Code

GRPC = "GRPC"
REST = "REST"
OTHER_MODELS = "(other)"
MAX_UNKNOWN_MODELS = 100
MAX_MODELS = 10_000
_MAX_NAME_CHARS = 256
# Counting many at once takes a third of the time; a report counts what is left.
_SETTLE_EVERY = 256
_COUNTED_OF_GRPC = frozenset({"Predict", "Classify", "Regress"})


class _Outcome:
    """What counts requests of one kind with one result. `took_ns`: of those that are yet to be counted."""

    __slots__ = ("_count", "_latency", "_tf_count", "took_ns")

    def __init__(self, count: Counter, tf_count: Counter | None, latency: Histogram | None) -> None:
        self.took_ns: list[int] = []
        self._count = count
        self._tf_count = tf_count
        self._latency = latency

    def settle(self) -> None:
        """Count them."""
        took_ns, self.took_ns = self.took_ns, []
        self._count.add(len(took_ns))
        if self._tf_count is not None:
            self._tf_count.add(len(took_ns))
        if self._latency is not None:
            self._latency.observe_all([each // 1000 for each in took_ns])


class RequestMetrics:
    """Counts one frontend's requests. `is_known`: the routes name the model; `on`: somebody can ask for the page."""

    def __init__(self, is_known: Callable[[str], bool], *, on: bool = True) -> None:
        self._on = on
        self._registry = Registry()
        self._is_known = is_known
        self._outcomes: dict[tuple[str, str, str, Code], _Outcome] = {}
        self._models: set[str] = {""}
        self._unknown_models = 0
        self._payload = self._registry.gauge(families.PAYLOAD_IN_FLIGHT)
        self._held = self._registry.gauge(families.REQUESTS_HELD)

    def finished(self, entrypoint: str, api: str, model: str, code: Code, started_ns: int) -> None:
        """A request was answered now.

        `entrypoint`: GRPC or REST; `api`: the RPC's name, or the verb of a REST path in small letters ("" for GET and
        for what is no path of ours); `model`: as the client names it ("" for none); `started_ns`: CLOCK_MONOTONIC.
        """
        if not self._on:
            return
        outcome = self._outcomes.get((entrypoint, api, model, code))
        if outcome is None:
            outcome = self._outcome(entrypoint, api, self._label(model), code)
        took_ns = outcome.took_ns
        took_ns.append(monotonic_ns() - started_ns)
        if len(took_ns) >= _SETTLE_EVERY:
            outcome.settle()

    def settled(self, model: str, fate: str) -> None:
        """A request of a worker that died met this fate (see `settling`)."""
        self._registry.counter(families.SETTLED_REQUESTS, self._label(model), fate).add()

    def quarantine_refused(self, model: str) -> None:
        """A request was refused because the same has killed two workers."""
        self._registry.counter(families.QUARANTINE_REFUSALS, self._label(model)).add()

    def changed(self, payload_bytes: int, held: int) -> tuple[MetricSample, ...]:
        """What the next report must say, with `payload_bytes` in flight and so many requests held for a worker."""
        if not self._on:
            return ()
        for outcome in self._outcomes.values():
            if outcome.took_ns:
                outcome.settle()
        self._payload.set(payload_bytes)
        self._held.set(held)
        return self._registry.changed()

    def lost(self, samples: tuple[MetricSample, ...]) -> None:
        """A report did not leave."""
        self._registry.lost(samples)

    def _label(self, model: str) -> str:
        """The name to count this model by."""
        if model in self._models:
            return model
        known = self._is_known(model)
        room = known or self._unknown_models < MAX_UNKNOWN_MODELS
        if not room or len(model) > _MAX_NAME_CHARS or len(self._models) >= MAX_MODELS or not _is_text(model):
            return OTHER_MODELS
        self._unknown_models += not known
        self._models.add(model)
        return model

    def _outcome(self, entrypoint: str, api: str, model: str, code: Code) -> _Outcome:
        outcome = self._outcomes.get((entrypoint, api, model, code))
        if outcome is None:
            counted = entrypoint == REST or api in _COUNTED_OF_GRPC
            outcome = _Outcome(
                self._registry.counter(families.REQUESTS, model, entrypoint, api, code.name),
                self._registry.counter(families.REQUEST_COUNT, model, code.name) if counted else None,
                self._registry.histogram(families.REQUEST_LATENCY, model, api, entrypoint)
                if counted and code is Code.OK
                else None,
            )
            self._outcomes[entrypoint, api, model, code] = outcome
        return outcome


def _is_text(name: str) -> bool:
    """A name out of a path may hold what is no character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
