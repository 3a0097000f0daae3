"""How a server, or a bare loop, is loaded, for whichever generator: data only."""

from dataclasses import dataclass

CONNECTIONS = 4
GENERATORS = ("auto", "h2load", "own")


@dataclass(frozen=True, slots=True)
class Plan:
    """`in_flight` requests for `duration_s` after `warmup_s`; or, with a `rate_per_s`, an open loop.

    An open loop is `poisson` or `constant`; `seed` fixes the times. `requests`: end a closed loop early, after so many
    answers. REST has one connection per request in flight. `generator`: `own` or `h2load`; what that cannot do, and
    `auto` where it is not installed, is done by our own.
    """

    in_flight: int
    warmup_s: float
    duration_s: float
    connections: int = CONNECTIONS
    rate_per_s: float = 0.0
    arrivals: str = "poisson"
    seed: int = 1
    requests: int = 0
    generator: str = "auto"

    def words(self) -> list[str]:
        """As arguments of `bench_load.py`."""
        names = ("in_flight", "warmup_s", "duration_s", "connections", "arrivals", "seed", "requests")
        return [*(f"--{name}={getattr(self, name)}" for name in names), f"--rate={self.rate_per_s}"]


@dataclass(frozen=True, slots=True)
class LoopOrder:
    """A turn of `bench_plain_loop`: so many threads call with the rows of `requests`, by turns on one of `arrays`."""

    warmup_s: float
    duration_s: float
    threads: int = 1
    requests: int = 1
    arrays: int = 1

    @classmethod
    def read(cls, line: str) -> "LoopOrder":
        warmup_s, duration_s, *counts = line.split()
        return cls(float(warmup_s), float(duration_s), *map(int, counts))

    def line(self) -> str:
        return f"{self.warmup_s} {self.duration_s} {self.threads} {self.requests} {self.arrays}\n"
