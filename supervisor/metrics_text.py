"""The metrics page: Prometheus' text format as TF Serving's exporter writes it (util/prometheus_exporter.cc). Pure.

TYPE lines without HELP, for families without a metric, too; braces even without labels; a histogram's sum in C++'s
six digits. Beyond the original: a line feed in a label value is escaped, as the format wants it, and whole numbers
of ours are written out in full.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from .metrics import Labels, Values
from .wire.metric_families import FAMILIES, TF_SERVING
from .wire.metrics import Family, Kind

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def page(series: Mapping[str, Mapping[Labels, Values]]) -> bytes:
    """The page, families and label values in order."""
    lines: list[str] = []
    for name in sorted(series):
        family = FAMILIES[name]
        lines.append(f"# TYPE {name} {family.kind}")
        for labels in sorted(series[name]):
            text = _labels(family, labels)
            if family.kind is Kind.HISTOGRAM:
                lines += _histogram(family, text, series[name][labels])
            else:
                lines.append(f"{name}{{{text}}} {_number(series[name][labels][0])}")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _histogram(family: Family, labels: str, values: Sequence[float]) -> list[str]:
    """`values`: the sum, then each bucket for itself."""
    name, lines, count = family.name, [], 0
    before = f"{labels}," if labels else ""
    for limit, in_bucket in zip(_limits(family), values[1:], strict=True):
        count += int(in_bucket)
        lines.append(f'{name}_bucket{{{before}le="{limit}"}} {count}')
    total = f"{values[0]:g}" if name.startswith(TF_SERVING) else _number(values[0])
    return [*lines, f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {count}"]


@cache
def _limits(family: Family) -> tuple[str, ...]:
    """The upper bounds of the buckets, as text."""
    return (*(f"{bound:g}" for bound in family.bounds), "+Inf")


def _labels(family: Family, values: Labels) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(family.labels, values, strict=True))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
