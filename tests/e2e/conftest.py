"""Fixtures of the end-to-end tests: the models, a pool for tests that leave it as it was, and pools of one's own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import models as test_models_module
from tests.e2e.pool import Pool, StartPool, model_config, running_pool

DENSE_POLICY = "specific { versions: 1 versions: 2 }"


@pytest.fixture(scope="session")
def models() -> Path:
    """The directory with all models of the demo and of the tests."""
    return test_models_module.test_models()


@pytest.fixture(scope="session")
def shared_pool(models: Path) -> Iterator[Pool]:
    """One pool of all good models for the whole session; a test that uses it leaves every worker alive."""
    names = ("demo", "dense", "half_plus_two", "dtypes", "dtypes_tf2", "sum", "twisted", "slow", "tflite", "spam")
    config = model_config({name: models / name for name in names}, {"dense": DENSE_POLICY})
    with running_pool(config, "--max_request_bytes=1000000") as pool:
        pool.wait_available(*names)
        yield pool


@pytest.fixture
def start_pool() -> Iterator[StartPool]:
    """Starts a pool of the test's own: `start_pool(config_text, *flags)`; all end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda config, *flags: stack.enter_context(running_pool(config, *flags))


@pytest.fixture
def pool(models: Path, start_pool: StartPool) -> Pool:
    """A pool of the demo models for a test that hurts it."""
    names = ("demo", "dense", "half_plus_two")
    started = start_pool(model_config({name: models / name for name in names}, {"dense": DENSE_POLICY}))
    started.wait_available(*names)
    return started
