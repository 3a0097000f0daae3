"""A picture of a report for the README, as SVG: requests/s of each server by workload and load, against the plain one.

Pure, and the same for the same report: the text of a file, made by hand so that nothing needs to be installed.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import bench_figures
import bench_serving
from bench_contenders import LOOP, PLAIN

_WIDTH = 860
_LEFT, _RIGHT, _TOP = 170, 190, 74
_BAR, _GAP, _GROUP = 16, 3, 16
_COLOURS = ("#1f6f8b", "#d9822b", "#5b8c3e", "#8e5ea2", "#c0504d")
_PLAIN_COLOUR = "#9a9a9a"
_FONT = "font-family='system-ui, sans-serif'"


def render(report: Mapping[str, Any]) -> str:
    """The closed-loop cells of the report. Raises ValueError when there are none beside a plain server."""
    cells = [each for each in report.get("serving", ()) if not each["server"].startswith(LOOP)]
    answered = [each for each in cells if each["server"] == PLAIN and each["median"]["requests_per_s"]]
    groups = [key for key in _loads(cells) if bench_serving.find(answered, *key, PLAIN) is not None]
    if not groups:
        raise ValueError("the report has no figures of a plain server to draw others against")
    servers = [*dict.fromkeys(each["server"] for each in cells if each["server"] != PLAIN), PLAIN]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(servers[:-1])} | {PLAIN: _PLAIN_COLOUR}
    bars = {key: _bars(cells, key, servers) for key in groups}
    scale = (_WIDTH - _LEFT - _RIGHT) / max(times for each in bars.values() for _, times, _ in each)
    height = _TOP + sum(len(drawn) * (_BAR + _GAP) + _GROUP for drawn in bars.values())
    parts = _head(report, servers, colours)
    one = f"x1='{_LEFT + scale:.1f}' x2='{_LEFT + scale:.1f}'"
    parts.append(f"<line {one} y1='{_TOP - 6}' y2='{height - _GROUP}' stroke='#bbb' stroke-dasharray='3 3'/>")
    y = _TOP
    for (workload, in_flight), drawn in bars.items():
        parts += _group(f"{workload}, {in_flight} in flight", drawn, colours, y, scale)
        y += len(drawn) * (_BAR + _GAP) + _GROUP
    size = f"width='{_WIDTH}' height='{height}' viewBox='0 0 {_WIDTH} {height}'"
    body = "\n".join(parts)
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img' {_FONT}>\n{body}\n</svg>\n"


def _loads(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((each["workload"], each["in_flight"]) for each in cells))


def _bars(cells: Sequence[Any], load: tuple[str, int], servers: Sequence[str]) -> list[tuple[str, float, str]]:
    """Of one load: the server, how many times the plain one's requests/s, and a label."""
    plain = bench_serving.find(cells, *load, PLAIN)
    assert plain is not None
    bars = []
    for server in servers:
        found = bench_serving.find(cells, *load, server)
        if found is not None:
            times = bench_figures.ratio_of_rounds(found["rounds"], plain["rounds"], "requests_per_s")
            m = found["median"]
            bars.append((server, times, f"{times:.1f}x  {m['requests_per_s']:,.0f}/s, p99 {m['p99_us'] / 1000:.1f} ms"))
    return bars


def _head(report: Mapping[str, Any], servers: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    machine = report["machine"]
    title = f"Requests/s against a plain grpcio server (= 1), on {machine['cpus']} CPUs beside the load generator"
    parts = ["<rect width='100%' height='100%' fill='#fff'/>", _text(12, 24, title, 15, "bold")]
    x = 12.0
    for name in servers:
        parts.append(f"<rect x='{x:.0f}' y='40' width='12' height='12' fill='{colours[name]}'/>")
        parts.append(_text(x + 17, 50, name, 12))
        x += 34 + 7.5 * len(name)
    return parts


def _group(
    label: str, bars: Sequence[tuple[str, float, str]], colours: Mapping[str, str], y: float, scale: float
) -> list[str]:
    parts = [_text(12, y + 13, label, 12)]
    for i, (server, times, words) in enumerate(bars):
        top = y + i * (_BAR + _GAP)
        width = max(1.0, times * scale)
        parts.append(f"<rect x='{_LEFT}' y='{top:.1f}' width='{width:.1f}' height='{_BAR}' fill='{colours[server]}'/>")
        parts.append(_text(_LEFT + width + 6, top + 12, words, 11))
    return parts


def _text(x: float, y: float, words: str, size: int, weight: str = "normal") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='#222'>{escape(words)}</text>"
