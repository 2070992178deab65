"""Small SVG plots, without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 680, 380  # px
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 48, 56
_COLOURS = ("#1f5fa8", "#c4541a", "#3b8a4c", "#7a4fa3")
_LEAST_BARS = 8  # a single one does not fill the plot
_QUANTILES = (0.0, 50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class _Axes:
    """From values to px; both axes begin at 0."""

    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / self.x_max

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.y_max


def percentiles(title: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Latency in ms by percentile, one curve each; the axis gives every further nine as much room."""
    most = max(len(values) for values in curves.values())
    shown = [q for q in _QUANTILES if most * (100 - q) >= 100]
    if not shown[1:]:
        shown = [0.0, 50.0]
    axes = _Axes(_nines(shown[-1]), _round_up(max(max(values) for values in curves.values())))
    parts = [_y_axis(axes, "ms")]
    parts += [_x_tick(axes.x(_nines(q)), f"p{q:g}" if q else "min") for q in shown]
    for colour, values in zip(_COLOURS, curves.values(), strict=False):
        ordered = sorted(values)
        at = [(100 * n / len(ordered), value) for n, value in enumerate(ordered)]
        points = [(axes.x(_nines(q)), axes.y(value)) for q, value in at if q <= shown[-1]]
        parts.append(_polyline(points, colour))
    return _document(title, [*parts, _legend([*curves])])


def bars(title: str, counts: Mapping[int, int], x_label: str) -> str:
    """How often each number came."""
    numbers = sorted(counts)
    axes = _Axes(max(_LEAST_BARS, len(numbers)), _round_up(max(counts.values())))
    parts = [_y_axis(axes, "times"), _x_label(x_label)]
    for place, number in enumerate(numbers):
        left, width = axes.x(place + 0.15), axes.x(0.7) - axes.x(0)
        top, bottom = axes.y(counts[number]), axes.y(0)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{bottom - top:.1f}" fill="{_COLOURS[0]}"/>'
        )
        parts.append(_text(axes.x(place + 0.5), top - 6, str(counts[number])))
        parts.append(_x_tick(axes.x(place + 0.5), str(number)))
    return _document(title, parts)


def line(title: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """Points joined in order."""
    axes = _Axes(_round_up(max(x for x, _ in points)), _round_up(max(y for _, y in points)))
    parts = [_y_axis(axes, y_label), _x_label(x_label)]
    parts += [_x_tick(axes.x(value), f"{value:g}") for value in _steps(axes.x_max)]
    parts.append(_polyline([(axes.x(x), axes.y(y)) for x, y in points], _COLOURS[0]))
    return _document(title, parts)


def _nines(q: float) -> float:
    """0 → 0, 90 → 1, 99 → 2, 99.9 → 3."""
    return -math.log10(1 - q / 100)


def _round_up(value: float) -> float:
    """To 1, 2, 2.5 or 5 times a power of ten, which divides evenly."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if value <= step * power
    )


def _steps(most: float) -> list[float]:
    return [most * n / 5 for n in range(6)]


def _y_axis(axes: _Axes, label: str) -> str:
    lines = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{axes.y(v):.1f}" y2="{axes.y(v):.1f}" '
        f'stroke="#ddd"/>{_text(_LEFT - 8, axes.y(v) + 4, f"{v:g}", "end")}'
        for v in _steps(axes.y_max)
    ]
    return "".join([*lines, _text(_LEFT - 8, _TOP - 14, label, "end")])


def _x_tick(x: float, label: str) -> str:
    return _text(x, _HEIGHT - _BOTTOM + 20, label)


def _x_label(label: str) -> str:
    return _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, label)


def _polyline(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _legend(names: Sequence[str]) -> str:
    entries = []
    for place, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        y = _TOP + 14 + 20 * place
        entries.append(
            f'<rect x="{_LEFT + 14}" y="{y - 9}" width="16" height="4" fill="{colour}"/>'
            f"{_text(_LEFT + 38, y - 2, name, 'start')}"
        )
    return "".join(entries)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, parts: Sequence[str]) -> str:
    heading = f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222">'
        '<rect width="100%" height="100%" fill="white"/>'
        f"{heading}{''.join(parts)}</svg>\n"
    )
