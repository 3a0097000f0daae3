"""What becomes of the requests of a dead worker. Pure: the core carries it out.

Design: a request that was not begun is sent again; one that was being executed (a suspect) is tried once more, alone,
where the model allows that; one that was being executed again is poison. A request whose answer is lost was executed:
where the model allows no second time, it is told so. Suspects that are sent again stay apart until they are answered,
so that each of a batch gets its own chance and the guilty one is found.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelpool.supervisor.wire.frontend_messages import WorkerDied
from modelpool.supervisor.wire.ids import ServableId
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.route_table import RetryOnCrash

from .retry_budget import SHARE


class Fate(StrEnum):
    """What to do with one request. The values are labels of a metric."""

    QUEUED = "queued"
    """It had not begun: send it again."""
    ANSWER_LOST = "answer_lost"
    """It was executed and may be so again: send it again."""
    SUSPECT = "suspect"
    """It may have killed the worker: send it again, to be executed alone."""
    POISON = "poison"
    """It was executing at a second death: refuse it and whatever is the same."""
    REFUSED = "refused"
    """It must not be executed again: answer UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`text`: for the client, where the request is not sent again."""

    request_id: int
    fate: Fate
    text: str = ""


def settle(
    servable: ServableId,
    death: WorkerDied,
    sent: Iterable[tuple[int, int]],
    retry_on_crash: RetryOnCrash,
    grant: Callable[[int], int],
) -> Sequence[Verdict]:
    """The fate of each request in `sent`: its id, and at how many deaths it was executing before this one.

    `grant`: of so many first suspects, how many the retry budget lets be tried.
    """
    executing, finished = frozenset(death.executing), frozenset(death.finished)
    verdicts: list[Verdict] = []
    suspects: list[int] = []
    for request_id, deaths in sent:
        if request_id in executing:
            if retry_on_crash is RetryOnCrash.NEVER:
                verdicts.append(Verdict(request_id, Fate.REFUSED, f"{_executed(servable, death)}; {_NEVER}"))
            elif deaths:
                verdicts.append(Verdict(request_id, Fate.POISON, poison_text(servable, death.cause)))
            else:
                suspects.append(request_id)
        elif request_id not in finished:
            verdicts.append(Verdict(request_id, Fate.QUEUED))
        elif retry_on_crash is RetryOnCrash.NEVER:
            verdicts.append(Verdict(request_id, Fate.REFUSED, f"{_lost(servable, death)}; {_NEVER}"))
        else:
            verdicts.append(Verdict(request_id, Fate.ANSWER_LOST))
    granted = grant(len(suspects)) if suspects else 0
    over = f"{_executed(servable, death)}; it was not tried again: {_BUDGET}"
    verdicts += [Verdict(request_id, Fate.REFUSED, over) for request_id in suspects[granted:]]
    return [*verdicts, *(Verdict(request_id, Fate.SUSPECT) for request_id in suspects[:granted])]


_NEVER = 'it was not tried again: retry_on_crash is "never"'
_BUDGET = f"more than one in {SHARE} requests of the model would have been, of late"


def deadline_text(servable: ServableId) -> str:
    return f"Deadline exceeded before model {servable.name} version {servable.version} answered"


def died_text(servable: ServableId) -> str:
    return f"The worker of model {servable.name} version {servable.version} died"


def replaced_text(servable: ServableId, cause: str) -> str:
    return f"{died_text(servable)} ({cause}) and is being replaced"


def poison_text(servable: ServableId, cause: str) -> str:
    return (
        f"{died_text(servable)} while it executed this request ({cause}), and so did another when the request was "
        "tried once more, alone; it is refused as poison"
    )


def quarantined_text(servable: ServableId, remaining_s: float) -> str:
    return (
        f"This request is the same as one that killed two workers of model {servable.name} version "
        f"{servable.version}; it is refused for another {remaining_s:.0f} s"
    )


def _executed(servable: ServableId, death: WorkerDied) -> str:
    return f"{died_text(servable)} while it executed this request ({death.cause})"


def _lost(servable: ServableId, death: WorkerDied) -> str:
    return f"{died_text(servable)} when it had executed this request, before the answer came ({death.cause})"


_SAMPLE_BYTES = 256


class Lookalikes:
    """Which payloads are the same as a suspect's: they wait behind it, or one poison sent often kills often."""

    def __init__(self, suspects: Iterable[Payload]) -> None:
        self._by_sample: dict[tuple[int, bytes, bytes], list[Payload]] = {}
        for payload in suspects:
            self._by_sample.setdefault(_sample(payload), []).append(payload)

    def __contains__(self, payload: Payload) -> bool:
        return bool(self._by_sample) and payload in self._by_sample.get(_sample(payload), ())


def _sample(payload: Payload) -> tuple[int, bytes, bytes]:
    return len(payload), payload[:_SAMPLE_BYTES], payload[-_SAMPLE_BYTES:]
