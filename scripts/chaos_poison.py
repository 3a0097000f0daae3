"""Scenes with a request that crashes every worker that executes it."""

import threading
import time

import chaos_client
import chaos_deadly
import grpc
from chaos_load import Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_NEIGHBOURS = 31
_TIMEOUT_S = 60.0
_POOL_FILE = '[models.a]\npython_modules = ["chaos_deadly"]\n'
_BATCHING = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 200000 }
num_batch_threads { value: 1 }
max_enqueued_batches { value: 100 }
"""

Answer = tuple[str, str, bool]


def ask(channel: grpc.Channel, number: int) -> Answer:
    """Code and text of one call of A, and whether the answer is this number's."""
    call = channel.unary_unary(chaos_client.PREDICT)
    try:
        answer = call(chaos_client.request_bytes("a", number), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code().name, error.details() or "", False
    return "OK", "", chaos_client.is_right(answer, number)


def poison(stage: Stage) -> list[Check]:
    """One deadly request and 31 innocent ones at once, in one batch where the pool can batch."""
    batching = stage.scratch / "batching.config"
    batching.write_text(_BATCHING, encoding="utf-8")
    flags = ["--enable_batching", f"--batching_parameters_file={batching}"]
    models = {"a": stage.models / "deadly", "b": stage.models / "quick"}
    with (
        ChaosPool(stage.scratch, models, _POOL_FILE, flags) as pool,
        Load(pool.target, {"b": 4}) as load,
        grpc.insecure_channel(pool.target) as channel,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        asked_s = time.monotonic()
        answers = _ask_at_once(channel, [chaos_deadly.NUMBER, *range(1000, 1000 + _NEIGHBOURS)])
        took_s = time.monotonic() - asked_s
        deaths = pool.worker("a")["restarts"]
        again_s = time.monotonic()
        again = ask(channel, chaos_deadly.NUMBER)
        again_s = time.monotonic() - again_s
        after = pool.worker("a")["restarts"]
        innocent = ask(channel, 5)
    guilty = answers.pop(chaos_deadly.NUMBER)
    right = sum(each[2] for each in answers.values())
    others = sorted({f"{code}: {text}" for code, text, is_right in answers.values() if not is_right})
    b = load.calls["b"]
    return [
        Check("at most two deaths", 1 <= deaths <= 2, f"{deaths} deaths"),
        Check("the guilty one is refused", guilty[0] == "FAILED_PRECONDITION", f"{guilty[0]}: {guilty[1]}"),
        Check(
            f"{_NEIGHBOURS} innocent neighbours are answered",
            right == _NEIGHBOURS,
            f"{right} within {took_s:.1f} s {others[:2] or ''}",
        ),
        Check(
            "the same again is refused, and kills nobody",
            again[0] == guilty[0] and after == deaths,
            f"{again[0]} after {again_s * 1e3:.0f} ms",
        ),
        Check("the model serves others", innocent[2], innocent[0]),
        Check("other models are unharmed", not b.refused and not b.wrong, f"{len(b)} calls, {b.codes or 'no error'}"),
    ]


def _ask_at_once(channel: grpc.Channel, numbers: list[int]) -> dict[int, Answer]:
    answers: dict[int, Answer] = {}
    threads = [threading.Thread(target=lambda n=number: answers.update({n: ask(channel, n)})) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


SCENES: dict[str, Scene] = {"a poison request in a batch": poison}
