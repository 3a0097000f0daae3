"""A real scrape: counts equal what was sent, and survive the worker that is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor
from tests.prometheus_text import Page, parse

PATH = "/monitoring/prometheus/metrics"
COUNT = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
STAGES = "modelpool_request_stage_seconds_count"
HALF, VERSION = "half_plus_two", "123"


@pytest.fixture(scope="module")
def pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    config = tmp_path_factory.mktemp("monitoring") / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    with running_pool(model_config({HALF: models / HALF}), f"--monitoring_config_file={config}") as pool:
        pool.wait_available(HALF)
        yield pool


def scrape(pool: Pool) -> Page:
    reply = pool.get(PATH)
    assert (reply.status, reply.content_type) == (200, "text/plain"), reply
    return parse(reply.text)


def ask(pool: Pool, model: str = HALF) -> None:
    pool.predict(predict_request(model, {"x": tensor([1.0])}))


def stage_count(page: Page, stage: str) -> float:
    return page.total(STAGES, model=HALF, version=VERSION, stage=stage)


def test_counts_are_what_was_sent(pool: Pool) -> None:
    before = scrape(pool)
    for _ in range(5):
        ask(pool)
    assert refusal(lambda: ask(pool, "nobody"))[0] is grpc.StatusCode.NOT_FOUND
    bad = predict_request(HALF, {"wrong": tensor([1.0])})
    assert refusal(lambda: pool.predict(bad))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert pool.post(f"/v1/models/{HALF}:predict", {"instances": [1.0]}).status == 200
    assert pool.post(f"/v1/models/{HALF}:predict", "no JSON").status == 400
    assert pool.get(f"/v1/models/{HALF}").status == 200
    after = scrape(pool)  # the frontend's own counts are there at once

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown(COUNT, model_name=HALF, status="OK") == 7
    assert grown(COUNT, model_name=HALF, status="INVALID_ARGUMENT") == 2
    assert grown(COUNT, model_name="nobody", status="NOT_FOUND") == 1
    assert grown(f"{LATENCY}_count", model_name=HALF, API="Predict", entrypoint="GRPC") == 5
    assert grown(f"{LATENCY}_count", model_name=HALF, API="predict", entrypoint="REST") == 1
    assert grown(f"{LATENCY}_count", model_name=HALF, API="", entrypoint="REST") == 1
    assert after.value(f"{LATENCY}_sum", model_name=HALF, API="Predict", entrypoint="GRPC") > 0
    # What the worker counts comes with its reports.
    eventually(lambda: stage_count(scrape(pool), "queue") - stage_count(before, "queue") == 8)
    page = scrape(pool)
    assert stage_count(page, "execute") - stage_count(before, "execute") == 6
    runtime = ":tensorflow:serving:runtime_latency_count"
    assert page.value(runtime, model_name=HALF, API="Predict", runtime="TF1") == stage_count(page, "execute")
    assert 0 < page.total("modelpool_request_stage_seconds_sum", model=HALF, stage="queue") < 60
    labels = {"model": HALF, "worker": "cpu#0", "signature": "serving_default", "method": "predict"}
    assert page.total(STAGES, stage="execute", **labels) - before.total(STAGES, stage="execute", **labels) == 5
    # What cannot be read has no signature, whatever the client called it.
    found = {dict(each)["signature"] for each in page.values[STAGES]}
    assert found <= {"", "serving_default"}


def test_the_pool_describes_itself(pool: Pool) -> None:
    page = scrape(pool)
    assert page.total("modelpool_worker_up", model=HALF, version=VERSION) == 1
    assert page.total("modelpool_worker_state", model=HALF, state="ready") == 1
    assert page.total("modelpool_worker_load_seconds", model=HALF) > 0
    for process in ("worker", "frontend", "supervisor", "fork_server"):
        assert page.total(f"modelpool_{process}_resident_memory_bytes") > 1_000_000, process
    assert page.total("modelpool_routes_epoch") == page.total("modelpool_frontend_routes_epoch") > 0
    assert page.total("modelpool_build_info") == 1


def test_a_query_is_refused(pool: Pool) -> None:
    assert pool.get(f"{PATH}?x=1").status == 400


def test_a_killed_worker_stays_counted_and_so_does_its_restart(pool: Pool) -> None:
    ask(pool)
    restarts = scrape(pool).total("modelpool_worker_restarts_total", cause="SIGKILL")
    page = eventually(lambda: (seen := scrape(pool)) and stage_count(seen, "execute") >= 1 and seen)
    incarnation = page.total("modelpool_worker_incarnation", model=HALF)
    os.kill(pool.worker(HALF, int(VERSION))["pid"], signal.SIGKILL)
    eventually(lambda: scrape(pool).total("modelpool_worker_incarnation", model=HALF) > incarnation)
    pool.wait_available(HALF)
    after = scrape(pool)
    assert after.total("modelpool_worker_restarts_total", cause="SIGKILL") == restarts + 1
    for name, series in page.values.items():
        if name.endswith(("_count", "_bucket", "_total")):
            assert all(after.values[name][labels] >= value for labels, value in series.items()), name
    ask(pool)
    eventually(lambda: stage_count(scrape(pool), "execute") > stage_count(page, "execute"))
