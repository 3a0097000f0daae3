"""Scenes with a request that crashes every worker that executes it."""

import threading
import time
from dataclasses import dataclass
from functools import partial

import chaos_client
import chaos_deadly
import grpc
from chaos_load import Calls, Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_NEIGHBOURS = 31
_TIMEOUT_S = 60.0
_OCCUPIED_WITHIN_S = 30.0
_BATCHING = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 700000 }
num_batch_threads { value: 1 }
max_enqueued_batches { value: 100 }
"""

Answer = tuple[str, str, bool]


@dataclass(frozen=True, slots=True)
class Batched:
    """How requests of a model come into one batch. `occupied`: they gather while another one is executed."""

    model: str
    pool_file: str
    flags: bool
    occupied: bool
    signal: str


_DEADLY_FILE = '[models.a]\npython_modules = ["chaos_deadly"]\n[models.b]\nbatching = "off"\n'

# Python code of the model that calls abort; a batch by flags waits for a while to be full, which B is not to do.
_BY_FLAGS = Batched("deadly", _DEADLY_FILE, True, False, "SIGABRT")
# An operation of TensorFlow that reads where there is nothing; `auto` takes what waits.
_BY_ITSELF = Batched("brittle", '[models.a]\nbatching = "auto"\n', False, True, "SIGSEGV")


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one guilty request, of the innocent ones beside it, and of the guilty one's repetition."""

    guilty: Answer
    innocent: dict[int, Answer]
    took_s: float
    deaths: int
    again: Answer
    again_s: float
    deaths_after: int
    later: Answer


def poison(stage: Stage, batched: Batched) -> list[Check]:
    """One deadly request and 31 innocent ones in one batch."""
    models = {"a": stage.models / batched.model, "b": stage.models / "quick"}
    with (
        ChaosPool(stage.scratch, models, batched.pool_file, _flags(stage) if batched.flags else ()) as pool,
        Load(pool.target, {"b": 4}) as load,
        grpc.insecure_channel(pool.target) as channel,
    ):
        time.sleep(stage.seconds(2.0, 0.2))
        seen = _play(pool, channel, batched.occupied)
        reports = pool.crash_reports("a")
    return _checks(seen, [(len(each["executing"]), each["cause"]) for each in reports], batched, load.calls["b"])


def _flags(stage: Stage) -> list[str]:
    batching = stage.scratch / "batching.config"
    batching.write_text(_BATCHING, encoding="utf-8")
    return ["--enable_batching", f"--batching_parameters_file={batching}"]


def _play(pool: ChaosPool, channel: grpc.Channel, occupied: bool) -> Seen:
    if occupied:
        first = threading.Thread(target=ask, args=(channel, chaos_deadly.SLOW_NUMBER))
        first.start()
        pool.until(lambda: pool.worker("a")["in_flight"], _OCCUPIED_WITHIN_S, "one request is executed")
    asked_s = time.monotonic()
    answers = _ask_at_once(channel, [chaos_deadly.NUMBER, *range(1000, 1000 + _NEIGHBOURS)])
    took_s, deaths = time.monotonic() - asked_s, pool.worker("a")["restarts"]
    again_s = time.monotonic()
    again = ask(channel, chaos_deadly.NUMBER)
    again_s = time.monotonic() - again_s
    guilty = answers.pop(chaos_deadly.NUMBER)
    return Seen(guilty, answers, took_s, deaths, again, again_s, pool.worker("a")["restarts"], ask(channel, 5))


def ask(channel: grpc.Channel, number: int) -> Answer:
    """Code and text of one call of A, and whether the answer is this number's."""
    call = channel.unary_unary(chaos_client.PREDICT)
    try:
        answer = call(chaos_client.request_bytes("a", number), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code().name, error.details() or "", False
    return "OK", "", chaos_client.is_right(answer, number)


def _ask_at_once(channel: grpc.Channel, numbers: list[int]) -> dict[int, Answer]:
    answers: dict[int, Answer] = {}
    threads = [threading.Thread(target=lambda n=number: answers.update({n: ask(channel, n)})) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _checks(seen: Seen, deaths: list[tuple[int, str]], batched: Batched, others: Calls) -> list[Check]:
    """`deaths`: of each how many requests were being executed, and its cause."""
    right = sum(each[2] for each in seen.innocent.values())
    wrong = sorted({f"{code}: {text}" for code, text, is_right in seen.innocent.values() if not is_right})
    return [
        Check(
            f"the first death is of a batch of {_NEIGHBOURS + 1}, by {batched.signal}; the second of the guilty alone",
            [count for count, _ in deaths] == [_NEIGHBOURS + 1, 1] and all(batched.signal in why for _, why in deaths),
            str(deaths),
        ),
        Check("at most two deaths", 1 <= seen.deaths <= 2, f"{seen.deaths} deaths"),
        Check("the guilty one is refused", seen.guilty[0] == "FAILED_PRECONDITION", ": ".join(seen.guilty[:2])),
        Check(
            f"{_NEIGHBOURS} innocent neighbours are answered",
            right == _NEIGHBOURS,
            f"{right} within {seen.took_s:.1f} s {wrong[:2] or ''}",
        ),
        Check(
            "the same again is refused, and kills nobody",
            seen.again[0] == seen.guilty[0] and seen.deaths_after == seen.deaths,
            f"{seen.again[0]} after {seen.again_s * 1e3:.0f} ms",
        ),
        Check("the model serves others", seen.later[2], seen.later[0]),
        Check(
            "other models are unharmed",
            not others.refused and not others.wrong,
            f"{len(others)} calls, {others.codes or 'no error'}",
        ),
    ]


SCENES: dict[str, Scene] = {
    "a poison request in a batch": partial(poison, batched=_BY_FLAGS),
    "a poison request for one of TensorFlow's operations": partial(poison, batched=_BY_ITSELF),
}
