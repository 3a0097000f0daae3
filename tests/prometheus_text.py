"""A strict reader of the metrics page, for tests: every line must be of the text format, each metric once."""

import re
from dataclasses import dataclass, field

_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)")
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?=.)|$)')
_UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
Labels = tuple[tuple[str, str], ...]


@dataclass
class Page:
    """`kinds` by family; `values` by the name of a line and its labels in their order."""

    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[Labels, float]] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """The value of the line with exactly these labels, in any order; 0 where there is none."""
        wanted = sorted(labels.items())
        found = [value for have, value in self.values.get(name, {}).items() if sorted(have) == wanted]
        return found[0] if found else 0.0

    def total(self, name: str, **labels: str) -> float:
        """The sum over all lines that have these labels among theirs."""
        wanted = set(labels.items())
        return sum(value for have, value in self.values.get(name, {}).items() if wanted <= set(have))


def parse(text: str) -> Page:
    """Raises AssertionError at the first line that is not of the format."""
    page, family = Page(), ""
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            found = _TYPE.fullmatch(line)
            assert found, line
            family = found[1]
            assert family not in page.kinds, line
            page.kinds[family] = found[2]
            continue
        found = _LINE.fullmatch(line)
        assert found, line
        name = found[1]
        allowed = {family}
        if page.kinds.get(family) == "histogram":
            allowed = {f"{family}_bucket", f"{family}_sum", f"{family}_count"}
        assert name in allowed, f"{line} below {family}"
        series = page.values.setdefault(name, {})
        labels = _labels(found[2])
        assert labels not in series, line
        series[labels] = float(found[3])
    _check_histograms(page)
    return page


def _labels(text: str) -> Labels:
    labels, position = [], 0
    while position < len(text):
        found = _LABEL.match(text, position)
        assert found, text
        labels.append((found[1], re.sub(r'\\["\\n]', lambda escape: _UNESCAPED[escape[0]], found[2])))
        position = found.end()
    return tuple(labels)


def _check_histograms(page: Page) -> None:
    """Buckets only grow, the last is +Inf and equals the count."""
    for family in (name for name, kind in page.kinds.items() if kind == "histogram"):
        counts = page.values.get(f"{family}_count", {})
        buckets: dict[Labels, list[tuple[str, float]]] = {}
        for labels, value in page.values.get(f"{family}_bucket", {}).items():
            assert labels[-1][0] == "le", labels
            buckets.setdefault(labels[:-1], []).append((labels[-1][1], value))
        assert buckets.keys() == counts.keys() == page.values.get(f"{family}_sum", {}).keys()
        for labels, each in buckets.items():
            limits = [float(limit) for limit, _ in each]
            assert limits == sorted(set(limits)), family
            assert each[-1] == ("+Inf", counts[labels]), family
            assert [value for _, value in each] == sorted(value for _, value in each), family
