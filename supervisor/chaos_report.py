"""What `modelpool chaos` has seen, as data and as a table. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """What the clients of one model saw in a stretch of time. `errors`: how often which code."""

    calls: int
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model before and while the victim was hurt. `texts`: its different refusals."""

    name: str
    hurt: bool
    before: Seen
    during: Seen
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Hurt:
    """One harm: when (since the start), and how long until the model was available again; None: not in time."""

    at_s: float
    available_after_s: float | None
    load_s: float | None
    warmup_s: float | None

    @property
    def beyond_load_s(self) -> float | None:
        """The time to available without what the next worker needed to load and warm up."""
        if self.available_after_s is None or self.load_s is None or self.warmup_s is None:
            return None
        return self.available_after_s - self.load_s - self.warmup_s


@dataclass(slots=True)
class Report:
    """A whole run. `unprobed`: models that could not be asked, and why; `poison`: how the poison was answered."""

    model: str
    harm: str
    clients: int
    hurts: list[Hurt] = field(default_factory=list)
    poison: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
    models: list[ModelReport] = field(default_factory=list)
    unprobed: dict[str, str] = field(default_factory=dict)

    @property
    def others_harmed(self) -> bool:
        """A model that was not hurt has refused a call while the victim was."""
        return any(each.during.errors for each in self.models if not each.hurt)


_MAX_TEXTS = 5


def of_model(name: str, hurt: bool, before: Seen, during: Seen, texts: list[str]) -> ModelReport:
    """`texts` cut to the first few."""
    return ModelReport(name, hurt, before, during, texts[:_MAX_TEXTS])


def render(report: Report) -> str:
    """For people: a line per model, the victim first, and what became of it below."""
    heading = ("MODEL", "", "CALLS", "ERRORS", "P50 ms", "P99 ms", "CALLS", "ERRORS", "P50 ms", "P99 ms", "P99 x")
    rows = [heading, *(_row(each) for each in sorted(report.models, key=lambda each: not each.hurt))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    before, during = sum(widths[:2]) + 2, sum(widths[2:6]) + 6
    lines = [f"{'':<{before}}  {'before':<{during}}  while {report.model} was hurt ({report.harm})"]
    lines += [
        "  ".join(_cell(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines += [f"{each.name}: {text}" for each in report.models for text in each.texts]
    lines += [f"{name}: not asked: {reason}" for name, reason in report.unprobed.items()]
    return "\n".join([*lines, *_recovery(report)])


def _cell(text: str, width: int, column: int) -> str:
    return f"{text:<{width}}" if column < 2 else f"{text:>{width}}"


def _row(each: ModelReport) -> tuple[str, ...]:
    ratio = each.during.p99_ms / each.before.p99_ms if each.before.p99_ms else 0.0
    cells = [cell for seen in (each.before, each.during) for cell in _cells(seen)]
    return (each.name, "hurt" if each.hurt else "", *cells, f"{ratio:.2f}")


def _cells(seen: Seen) -> tuple[str, ...]:
    return (str(seen.calls), str(sum(seen.errors.values())), f"{seen.p50_ms:.1f}", f"{seen.p99_ms:.1f}")


def _recovery(report: Report) -> list[str]:
    lines = [f"restarts: {report.restarts}"]
    if report.poison:
        lines.append(f"the poison was answered with {report.poison['code']}: {report.poison['message'] or 'an answer'}")
    for number, hurt in enumerate(report.hurts, 1):
        if hurt.available_after_s is None:
            lines.append(f"{report.harm} {number}: not available again in time")
        else:
            beyond = "" if hurt.beyond_load_s is None else f", {hurt.beyond_load_s:.2f} s beyond load and warmup"
            lines.append(f"{report.harm} {number}: available after {hurt.available_after_s:.2f} s{beyond}")
    return lines
