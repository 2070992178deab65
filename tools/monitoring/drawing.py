"""The dashboard as a page without Grafana: each panel's queries, drawn as SVG. It loads nothing."""

from __future__ import annotations

import json
import time
from html import escape
from typing import Any, Final

from tools.monitoring.dashboard import WRITTEN
from tools.monitoring.queries import Line, Period, lines

_COLOURS: Final = (
    "#2f6fbb", "#d9822b", "#3d9a50", "#b8455c", "#7a5cb5", "#8a6d3b", "#1f9e9e", "#c05fa8", "#6b7280",
)  # fmt: skip
_ROW_PX: Final = 30  # of Grafana's grid
_W, _H, _LEFT = 400, 130, 46  # a graph, in units of its SVG; room for the numbers
_MOST_NAMES: Final = 9
_STYLE: Final = """
body { margin: 12px; background: #f4f5f7; font: 12px/1.4 system-ui, sans-serif; color: #1f2430 }
main { display: grid; grid-template-columns: repeat(24, 1fr); gap: 6px }
section { background: #fff; border: 1px solid #dde0e6; border-radius: 3px; padding: 6px 8px;
  overflow: hidden; display: flex; flex-direction: column }
h1 { font-size: 16px; margin: 0 0 8px } h2 { grid-column: 1 / -1; font-size: 13px; margin: 8px 0 0 }
h3 { font-size: 12px; margin: 0 0 2px; font-weight: 600 }
svg { width: 100%; flex: 1; min-height: 0 } text { font-size: 9px; fill: #6b7280 }
p { margin: auto; font-size: 26px }
ul { margin: 0; padding: 0; list-style: none; max-height: 50px; overflow: hidden }
li { display: inline-block; margin-right: 10px; font-size: 10px }
b { display: inline-block; width: 8px; height: 8px; margin-right: 4px; border-radius: 2px }
"""


def draw(prometheus: str, *, seconds: float, rate_interval: str = "1m") -> str:
    """The page. prometheus: its URL. seconds: how long ago the graphs begin."""
    panels = json.loads(WRITTEN.read_text(encoding="utf-8"))["panels"]
    period = Period.last(seconds, rate_interval)
    drawn = "".join(_drawn(panel, prometheus, period) for panel in panels)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>maskq</title><style>{_STYLE}</style>"
        f"<h1>maskq: the last {seconds / 60:.0f} minutes</h1><main>{drawn}</main></html>\n"
    )


def _drawn(panel: dict[str, Any], prometheus: str, period: Period) -> str:
    if panel["type"] == "row":
        return f"<h2>{escape(panel['title'])}</h2>"
    place = panel["gridPos"]
    style = f"grid-column: span {place['w']}; height: {place['h'] * _ROW_PX - 20}px"
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = [line for line in lines(panel, prometheus, period) if line.points]
    show = _number if panel["type"] == "stat" else _graph
    title = f"<h3>{escape(panel['title'])}</h3>"
    return f'<section style="{style}">{title}{show(found, unit, period)}</section>'


def _number(found: list[Line], unit: str, period: Period) -> str:
    return f"<p>{text(found[0].points[-1][1], unit) if found else 'no data'}</p>"


def _graph(found: list[Line], unit: str, period: Period) -> str:
    if not found:
        return "<p>no data</p>"
    top = max((value for line in found for _, value in line.points), default=0) or 1
    paths = "".join(
        f'<path d="{_path(line, top, period)}" fill="none" stroke="{_COLOURS[number % len(_COLOURS)]}"'
        ' stroke-width="1.3" vector-effect="non-scaling-stroke"/>'
        for number, line in enumerate(found)
    )
    names = "".join(
        f'<li><b style="background: {_COLOURS[number % len(_COLOURS)]}"></b>{escape(line.name)}</li>'
        for number, line in enumerate(found[:_MOST_NAMES])
    )
    return (
        f'<svg viewBox="0 0 {_W} {_H + 14}">{_axes(top, unit, period)}{paths}</svg><ul>{names}</ul>'
    )


def _axes(top: float, unit: str, period: Period) -> str:
    drawn = []
    for part in (0, 0.5, 1):
        y = _H - part * (_H - 8)
        drawn.append(f'<path d="M{_LEFT} {y:.1f}H{_W}" stroke="#e4e7ec"/>')
        drawn.append(
            f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{text(top * part, unit)}</text>'
        )
        at = time.strftime("%H:%M", time.gmtime(period.start + part * period.seconds))
        anchor = {0: "start", 0.5: "middle", 1: "end"}[part]
        x = _LEFT + part * (_W - _LEFT)
        drawn.append(f'<text x="{x}" y="{_H + 11}" text-anchor="{anchor}">{at}</text>')
    return "".join(drawn)


def _path(line: Line, top: float, period: Period) -> str:
    """A line that breaks off where values are missing."""
    drawn, before = [], float("-inf")
    for at, value in line.points:
        x = _LEFT + (at - period.start) / period.seconds * (_W - _LEFT)
        y = _H - value / top * (_H - 8)
        drawn.append(f"{'L' if at - before < 1.5 * period.step else 'M'}{x:.1f} {y:.1f}")
        before = at
    return "".join(drawn)


def text(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= factor:
            scale = 1e3 if sign == "k" else factor
            return f"{value / scale:.3g} {sign}{_SIGNS[unit]}"
    return f"{value:.3g} {_SIGNS[unit]}".strip()


_SIGNS: Final = {"short": "", "s": "s", "ops": "/s", "bytes": "B"}
