"""Version labels: from the config file, by reload requests, moved, refused; and asked for over gRPC and REST."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, refusal, running_pool

BOTH = "specific { versions: 1 versions: 2 }"
ALL = "all {}"
NOT_AVAILABLE = (
    "Request to assign label to version {} of model numbered, which is not currently available for inference"
)


def labelled(models: Path, labels: dict[str, int], policy: str = BOTH) -> str:
    """The configuration with the one model `numbered`."""
    return model_config({"numbered": models / "numbered"}, {"numbered": policy}, {"numbered": labels})


def labels_told(pool: Pool) -> dict[int, list[str]]:
    """The labels of each version by the status document."""
    return {each["version"]: each["labels"] for each in pool.model("numbered")["versions"]}


def by_label(pool: Pool, label: str) -> tuple[int, int]:
    """Which version answers, over gRPC and over REST."""
    return pool.number_by_grpc("numbered", label=label), pool.number_by_rest("numbered", label=label)


def refused_by_label(pool: Pool, label: str) -> tuple[grpc.StatusCode, str, int, str]:
    """How a request by that label is refused: over gRPC, then over REST."""
    reply = pool.post(f"/v1/models/numbered/labels/{label}:predict", {"instances": [0.0]})
    return *refusal(lambda: pool.number_by_grpc("numbered", label=label)), reply.status, reply.error


@dataclass(frozen=True, slots=True)
class Labelled:
    """A pool that was started with labels in its file, and what they named when its ports opened."""

    pool: Pool
    by_label: dict[str, tuple[int, int]]
    told: dict[int, list[str]]


@pytest.fixture(scope="module")
def labelled_pool(models: Path) -> Iterator[Labelled]:
    labels = {"stable": 1, "canary": 2, "beta": 2}
    with running_pool(labelled(models, labels)) as pool:
        yield Labelled(pool, {label: by_label(pool, label) for label in labels}, labels_told(pool))


@pytest.fixture
def pool(labelled_pool: Labelled, models: Path) -> Pool:
    """Versions 1 and 2 are served, `stable` is 1 and `canary` 2."""
    labelled_pool.pool.reload(labelled(models, {"stable": 1, "canary": 2}))
    return labelled_pool.pool


def test_labels_of_the_start(labelled_pool: Labelled) -> None:
    """The labels of the file hold when the ports open, though nothing was available when it was read."""
    assert labelled_pool.by_label == {"stable": (1, 1), "canary": (2, 2), "beta": (2, 2)}
    assert labelled_pool.told == {1: ["stable"], 2: ["beta", "canary"]}
    assert labelled_pool.pool.number_by_grpc("numbered") == 2, "without a label it is the newest"


def test_an_unknown_label(pool: Pool) -> None:
    text = "Unrecognized servable version label: nonesuch"
    assert refused_by_label(pool, "nonesuch") == (grpc.StatusCode.INVALID_ARGUMENT, text, 400, text)


def test_labels_of_a_reload(pool: Pool, models: Path) -> None:
    pool.reload(labelled(models, {"stable": 2, "fresh": 2}))
    assert by_label(pool, "stable") == (2, 2)
    assert by_label(pool, "fresh") == (2, 2)
    text = "Unrecognized servable version label: canary"
    assert refused_by_label(pool, "canary") == (grpc.StatusCode.INVALID_ARGUMENT, text, 400, text), "it was dropped"
    assert labels_told(pool) == {1: [], 2: ["fresh", "stable"]}


def test_labels_are_moved_atomically(pool: Pool, models: Path) -> None:
    """While two labels are exchanged again and again, each names one version or the other, and never none."""
    failures: list[str] = []
    answers: dict[str, set[int]] = {"stable": set(), "canary": set()}

    def ask(stop: threading.Event, label: str, by_rest: bool) -> None:
        while not stop.is_set():
            try:
                answers[label].add((pool.number_by_rest if by_rest else pool.number_by_grpc)("numbered", label=label))
            except (grpc.RpcError, AssertionError, OSError) as error:
                failures.append(str(error))

    assert pool.channel is not None  # made before the threads share it
    clients = [partial(ask, label=label, by_rest=rest) for label in answers for rest in (False, True)]
    with beside(*clients):
        for turn in range(20):
            stable, canary = (2, 1) if turn % 2 == 0 else (1, 2)
            pool.reload(labelled(models, {"stable": stable, "canary": canary}))
            assert (by_label(pool, "stable"), by_label(pool, "canary")) == ((stable, stable), (canary, canary))
    assert failures == []
    assert answers == {"stable": {1, 2}, "canary": {1, 2}}


def test_a_label_to_a_version_that_is_not_available_refuses_all(pool: Pool, models: Path) -> None:
    config = model_config(
        {"numbered": models / "numbered", "sum": models / "sum"},
        {"numbered": ALL},
        {"numbered": {"stable": 2, "canary": 3}},
    )
    assert refusal(lambda: pool.reload(config)) == (grpc.StatusCode.FAILED_PRECONDITION, NOT_AVAILABLE.format(3))
    assert (by_label(pool, "stable"), by_label(pool, "canary")) == ((1, 1), (2, 2))
    assert pool.versions("sum") == {}
    assert pool.versions("numbered") == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert [model["name"] for model in pool.status()["models"]] == ["numbered"]


def test_a_label_of_a_version_that_went(pool: Pool, models: Path) -> None:
    pool.reload(labelled(models, {"canary": 2}, "specific { versions: 1 }"))
    eventually(lambda: pool.versions("numbered") == {1: "AVAILABLE", 2: "END"}, 20.0)
    text = "Servable not found for request: Specific(numbered, 2)"
    assert refused_by_label(pool, "canary") == (grpc.StatusCode.NOT_FOUND, text, 404, text)
    pool.reload(labelled(models, {}))
    eventually(lambda: pool.versions("numbered") == {1: "AVAILABLE", 2: "AVAILABLE"}, 20.0)


def test_labels_for_versions_that_are_not_available(models: Path) -> None:
    flag = "--allow_version_labels_for_unavailable_models"
    with running_pool(labelled(models, {"stable": 1}), flag) as pool:
        eventually(lambda: pool.versions("numbered") == {1: "AVAILABLE", 2: "AVAILABLE"}, 20.0)
        pool.reload(labelled(models, {"stable": 1, "next": 3}))
        text = "Servable not found for request: Specific(numbered, 3)"
        assert refused_by_label(pool, "next") == (grpc.StatusCode.NOT_FOUND, text, 404, text)
        config = labelled(models, {"stable": 3, "next": 3}, ALL)
        refused = (grpc.StatusCode.FAILED_PRECONDITION, NOT_AVAILABLE.format(3))
        assert refusal(lambda: pool.reload(config)) == refused, "a label in use moves only to what is available"
        assert pool.versions("numbered") == {1: "AVAILABLE", 2: "AVAILABLE"}
        pool.reload(labelled(models, {"stable": 1, "next": 3}, ALL))
        eventually(lambda: pool.versions("numbered").get(3) == "AVAILABLE", 20.0)
        assert by_label(pool, "next") == (3, 3)
        assert by_label(pool, "stable") == (1, 1)
