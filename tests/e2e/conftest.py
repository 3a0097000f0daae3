"""Fixtures of the end-to-end tests: the models, a pool for tests that leave it as it was, and pools of one's own."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelpool.supervisor.wire.frontend_spec import Engine
from tests.e2e import models as test_models_module
from tests.e2e import pool as pool_module
from tests.e2e.pool import Pool, StartPool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

DENSE_POLICY = "specific { versions: 1 versions: 2 }"


# The first is what the server takes by itself. What depends on how the protocols are ended, and what the frontends do
# at a death, a reload and the end, is tested with both; all else with the first.
ENGINES = (Engine.ENVOY, Engine.GRPCIO) if importlib.util.find_spec("pyvoy") else (Engine.GRPCIO,)
OF_BOTH_ENGINES = {
    "test_crash",
    "test_errors",
    "test_grpc_cases",
    "test_large_tensors",
    "test_rest_cases",
    "test_rest_errors",
    "test_shutdown",
    "test_versions_under_load",
}


def pytest_configure(config: pytest.Config) -> None:
    engine = config.getoption("--frontend")
    if engine:
        pool_module.COMMON_FLAGS.append(f"--frontend={engine}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    forced = metafunc.config.getoption("--frontend")
    both = metafunc.module.__name__.rpartition(".")[2] in OF_BOTH_ENGINES
    engines = [forced] if forced else ENGINES if both else ENGINES[:1]
    metafunc.parametrize("engine", [str(engine) for engine in engines], scope="session")


@pytest.fixture(scope="session")
def models() -> Path:
    """The directory with all models of the demo and of the tests."""
    return test_models_module.test_models()


@pytest.fixture(scope="session")
def shared_pools(models: Path) -> Iterator[Callable[[str], Pool]]:
    """For each engine one pool of all good models, started when it is asked for, for the whole session."""
    names = ("demo", "dense", "half_plus_two", "dtypes", "dtypes_tf2", "sum", "twisted", "slow", "tflite", "spam")
    config = model_config({name: models / name for name in names}, {"dense": DENSE_POLICY})
    started: dict[str, Pool] = {}
    with contextlib.ExitStack() as stack:

        def of(engine: str) -> Pool:
            if engine not in started:
                flags = ("--max_request_bytes=1000000", f"--frontend={engine}")
                started[engine] = stack.enter_context(running_pool(config, *flags))
                started[engine].wait_available(*names)
            return started[engine]

        yield of


@pytest.fixture
def shared_pool(shared_pools: Callable[[str], Pool], engine: str) -> Pool:
    """A test that uses it leaves every worker alive."""
    return shared_pools(engine)


@pytest.fixture
def workers_live_on(shared_pool: Pool) -> Iterator[None]:
    """After the test the same processes answer as before it, and rightly."""
    served = {"half_plus_two": 123, "dense": 2, "demo": 1, "sum": 1}
    before = [shared_pool.worker(name, version)["pid"] for name, version in served.items()]
    yield
    assert [shared_pool.worker(name, version)["pid"] for name, version in served.items()] == before
    reply = shared_pool.predict(predict_request("half_plus_two", {"x": tensor([1.0, 2.0, 5.0])}))
    assert values(reply.outputs["y"]) == [2.5, 3.0, 4.5]


@pytest.fixture
def start_pool(engine: str) -> Iterator[StartPool]:
    """Starts a pool of the test's own: `start_pool(config_text, *flags)`; all end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda config, *flags: stack.enter_context(running_pool(config, f"--frontend={engine}", *flags))


@pytest.fixture
def pool(models: Path, start_pool: StartPool) -> Pool:
    """A pool of the demo models for a test that hurts it."""
    names = ("demo", "dense", "half_plus_two")
    started = start_pool(model_config({name: models / name for name in names}, {"dense": DENSE_POLICY}))
    started.wait_available(*names)
    return started
