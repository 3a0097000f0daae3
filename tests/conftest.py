"""For all tests: TensorFlow itself is never imported by the process that runs them.

The bare `tensorflow` package of `wire.protos` is installed before any test module is collected, so that the proto
modules are found quickly and every test sees the same. A test that needs TensorFlow runs it in a process of its own.
"""

import pytest
from hypothesis import HealthCheck, settings

import modelpool.supervisor.wire.protos  # noqa: F401
from modelpool.supervisor.wire.frontend_spec import Engine

# A machine that is busy with other things makes no test wrong, and the same code has the same result each time:
# `--hypothesis-profile=searching` looks for new examples.
_ANY_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("any machine", derandomize=True, **_ANY_MACHINE)
settings.register_profile("searching", **_ANY_MACHINE)
settings.load_profile("any machine")

# Of each kind, in the suite; `scripts/fuzz` sends many more.
_FUZZ_BODIES = 2000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-bodies", type=int, default=_FUZZ_BODIES, help="how many spoiled bodies tests/e2e/test_fuzz.py sends"
    )
    parser.addoption(
        "--frontend",
        choices=[engine.value for engine in Engine],
        help="run the end-to-end tests with this engine alone; default: what the server chooses, and some with both",
    )


@pytest.fixture(scope="session")
def fuzz_bodies(request: pytest.FixtureRequest) -> int:
    """How many spoiled bodies of each kind to send."""
    count: int = request.config.getoption("--fuzz-bodies")
    return count
