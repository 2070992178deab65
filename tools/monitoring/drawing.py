"""The dashboard as a page without Grafana: each panel's queries, drawn as SVG. It loads nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from tools.monitoring.dashboard import WRITTEN
from tools.monitoring.queries import Line, Period, lines

_COLOURS: Final = (
    "#2f6fbb", "#d9822b", "#3d9a50", "#b8455c", "#7a5cb5", "#8a6d3b", "#1f9e9e", "#c05fa8", "#6b7280",
)  # fmt: skip
_ROW_PX: Final = 30  # of Grafana's grid
# In the units of an SVG: a column of the grid, the height of a graph, room for the numbers beside it.
_COLUMN, _H, _LEFT = 50, 130, 46
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
    title = escape(panel["title"])
    if panel["type"] == "row":
        return f"<h2>{title}</h2>"
    place = panel["gridPos"]
    style = f"grid-column: span {place['w']}; height: {place['h'] * _ROW_PX - 20}px"
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = [line for line in lines(panel, prometheus, period) if line.points]
    if not found:
        shown = "<p>no data</p>"
    elif panel["type"] == "stat":
        shown = f"<p>{text(found[0].points[-1][1], unit)}</p>"
    else:
        top = max(value for line in found for _, value in line.points) or 1
        shown = Chart(place["w"] * _COLUMN, top, unit, period).svg(found) + _names(found)
    return f'<section style="{style}"><h3>{title}</h3>{shown}</section>'


def _names(found: list[Line]) -> str:
    entries = "".join(
        f'<li><b style="background: {_colour(number)}"></b>{escape(line.name)}</li>'
        for number, line in enumerate(found[:_MOST_NAMES])
    )
    return f"<ul>{entries}</ul>"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


@dataclass(frozen=True, slots=True)
class Chart:
    """The axes of a graph, whose values begin at 0."""

    width: float
    top: float  # the largest value
    unit: str
    period: Period

    def svg(self, found: list[Line]) -> str:
        """The graph."""
        paths = "".join(
            f'<path d="{self._path(line)}" fill="none" stroke="{_colour(number)}" stroke-width="1.3"/>'
            for number, line in enumerate(found)
        )
        return f'<svg viewBox="0 0 {self.width} {_H + 14}">{self._axes()}{paths}</svg>'

    def _x(self, at: float) -> float:
        return _LEFT + (at - self.period.start) / self.period.seconds * (self.width - _LEFT - 2)

    def _y(self, value: float) -> float:
        return _H - value / self.top * (_H - 8)

    def _axes(self) -> str:
        drawn = []
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
            y, value = self._y(self.top * part), text(self.top * part, self.unit)
            at = self.period.start + part * self.period.seconds
            drawn += [
                f'<path d="M{_LEFT} {y:.1f}H{self.width}" stroke="#e4e7ec"/>',
                f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value}</text>',
                f'<text x="{self._x(at):.0f}" y="{_H + 11}" text-anchor="{anchor}">{_clock(at)}</text>',
            ]
        return "".join(drawn)

    def _path(self, line: Line) -> str:
        """A line that breaks off where values are missing."""
        drawn, before = [], float("-inf")
        for at, value in line.points:
            move = "L" if at - before < 1.5 * self.period.step else "M"
            drawn.append(f"{move}{self._x(at):.1f} {self._y(value):.1f}")
            before = at
        return "".join(drawn)


def _clock(at: float) -> str:
    return time.strftime("%H:%M", time.gmtime(at))


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
