"""From images per second of every round to what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

OURS = "maskq"
TIE = 0.02  # a smaller difference of medians says nothing on a shared machine


def summary(
    rates: Mapping[str, Sequence[float]],
    equal: Mapping[str, float],
    forwards_s: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """rates: images per second, by contender and round; equal: share of pixels, the worst round's.

    Ratios are of the same round. efficiency: end to end rate over the rate of the bare forward of
    the network that the contender uses.
    """
    forward_s = {way: median(each) for way, each in forwards_s.items()}
    return {
        "forward_s": {way: rounded(each) for way, each in forwards_s.items()},
        "contenders": {
            name: {
                "images_per_s": rounded(each),
                "images_per_s_median": round(median(each), 4),
                "efficiency": round(median(each) * forward_s[network_of(name)], 3),
                "equal_pixels": equal[name],
                **against(rates, name),
            }
            for name, each in rates.items()
        },
    }


def against(rates: Mapping[str, Sequence[float]], name: str) -> dict[str, Any]:
    """How many times as fast as this peer maskq is."""
    if name == OURS or OURS not in rates:
        return {}
    ratios = [ours / peer for ours, peer in zip(rates[OURS], rates[name], strict=True)]
    return {
        "maskq_over_it": rounded(ratios),
        "maskq_over_it_median": round(median(ratios), 3),
        "maskq_is": verdict(ratios),
    }


def verdict(ratios: Sequence[float]) -> str:
    """A tie where rounds disagree, or the median is as good as 1."""
    if min(ratios) <= 1 <= max(ratios) or abs(median(ratios) - 1) < TIE:
        return "tie"
    return "faster" if median(ratios) > 1 else "slower"


def network_of(name: str) -> str:
    return "ours" if name.startswith(OURS) else "transformers"


def rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For a table of text."""
    return [
        {
            "contender": name,
            "images/s": one["images_per_s_median"],
            "s/image": 1 / one["images_per_s_median"],
            "end to end / forward": one["efficiency"],
            "equal pixels": f"{one['equal_pixels']:.6%}",
            "maskq is": one.get("maskq_is"),
            "times": one.get("maskq_over_it_median"),
            "by round": " ".join(f"{ratio:.2f}" for ratio in one.get("maskq_over_it", [])),
        }
        for name, one in figures["contenders"].items()
    ]


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]
