"""Whether this server is ready: which required models do not answer, and why. Pure, over one route table.

The one place that decides it, for gRPC's health service and for REST's pages alike. What is required is the pool's
configuration, which travels in the table.
"""

from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

NO_ROUTES_YET = "the supervisor has not sent the routes yet"


def is_available(model: ModelRoute) -> bool:
    """Some version takes requests."""
    return any(version.state is ServableState.AVAILABLE for version in model.versions)


def why_not(model: ModelRoute) -> str:
    """What keeps a model that is not available; "" for one that is."""
    if is_available(model):
        return ""
    if not model.versions:
        return "no version was found"
    newest_first = sorted(model.versions, key=lambda version: version.version, reverse=True)
    return "; ".join(_described(version) for version in newest_first)


def missing(table: RouteTable) -> dict[str, str]:
    """The required models that are not available, each with the reason."""
    reasons = {model.name: why_not(model) for model in table.models if model.required}
    return {name: reason for name, reason in reasons.items() if reason}


def is_ready(table: RouteTable) -> bool:
    """Every required model is available. Never before the first table (their epochs begin at 1)."""
    return table.epoch > 0 and not missing(table)


def _described(version: VersionRoute) -> str:
    text = f"version {version.version} is {version.state.name}"
    return text if version.code is Code.OK else f"{text}: {version.code.name}: {version.message}"
