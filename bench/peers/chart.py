"""The contenders side by side, as bars: images a second, and seconds until the first mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench import charts

OURS: Final = "maskq"


def draw(name: str, contenders: Mapping[str, Mapping[str, Any]]) -> Path:
    """docs/images/NAME.png; contenders: as in the file of results."""
    figure, (rates, starts) = charts.panels(2, height_in=0.9 + 0.36 * len(contenders))
    names = [*contenders][::-1]  # matplotlib draws from below
    for place, one in enumerate(names):
        colour = charts.OURS if one.startswith(OURS) else charts.OTHERS
        found = contenders[one]
        rates.barh(place, found["images_per_s_median"], color=colour)
        rates.plot(found["images_per_s"], [place] * len(found["images_per_s"]), "k.", markersize=3)
        first, *again = found["starts_s"]
        starts.barh(place + 0.2, first, height=0.4, color=colour)
        starts.barh(place - 0.2, again[0] if again else 0, height=0.4, color=colour, alpha=0.5)
    rates.set_yticks(range(len(names)), names)
    starts.set_yticks([])
    rates.set_title("images a second (points: rounds)")
    starts.set_title("seconds to the first mask (pale: second start)")
    return charts.save(figure, name)
