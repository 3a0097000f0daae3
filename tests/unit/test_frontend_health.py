"""Which services are healthy under which routes."""

from grpc_health.v1.health_pb2 import HealthCheckResponse

from modelpool.frontend.health import statuses
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
SERVICES = dict.fromkeys(
    (
        "ModelService",
        "PredictionService",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    ),
    SERVING,
)
READY, NOT_READY = SERVICES | {"": SERVING}, SERVICES | {"": NOT_SERVING}


def model(name: str, *states: ServableState) -> ModelRoute:
    versions = tuple(VersionRoute(number, state, Code.OK, "", ()) for number, state in enumerate(states))
    return ModelRoute(name, versions, {})


def test_without_models() -> None:
    assert statuses(RouteTable(1, ())) == READY


def test_before_the_first_routes() -> None:
    assert statuses(RouteTable(-1, ())) == NOT_READY


def test_a_model_serves_with_any_version() -> None:
    table = RouteTable(
        1,
        (
            model("none"),
            model("one", ServableState.AVAILABLE),
            model("old one", ServableState.AVAILABLE, ServableState.LOADING),
            *(model(state.name, state) for state in ServableState if state is not ServableState.AVAILABLE),
        ),
    )
    assert statuses(table) == NOT_READY | {
        "none": NOT_SERVING,
        "one": SERVING,
        "old one": SERVING,
        "START": NOT_SERVING,
        "LOADING": NOT_SERVING,
        "UNLOADING": NOT_SERVING,
        "END": NOT_SERVING,
    }


def test_a_model_cannot_take_a_name_of_the_server() -> None:
    assert statuses(RouteTable(1, (model("PredictionService"),))) == NOT_READY
