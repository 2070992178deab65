"""From images per second of every round to what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

OURS = "maskq"
TIE = 0.02  # a smaller difference of medians says nothing on a shared machine


@dataclass
class Seen:
    """Of one contender, a figure a round."""

    rates: list[float] = field(default_factory=list)  # images a second
    cpu_ms: list[float] = field(default_factory=list)  # an image, of all its processes
    peak_mib: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)  # from each start to its first mask
    equal: float = 1.0  # share of the pixels, of the worst round
    uncertain: float | None = None  # share of the pixels, where the contender tells it


def summary(seen: Mapping[str, Seen], forwards_s: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """By contender. Ratios are of the same round.

    efficiency: end to end rate over the rate of the bare forward of the network that it uses.
    """
    forward_s = {way: median(each) for way, each in forwards_s.items()}
    rates = {name: one.rates for name, one in seen.items()}
    return {
        "forward_s": {way: rounded(each) for way, each in forwards_s.items()},
        "contenders": {
            name: {
                "images_per_s": rounded(one.rates),
                "images_per_s_median": round(median(one.rates), 4),
                "efficiency": round(median(one.rates) * forward_s[network_of(name)], 3),
                "equal_pixels": one.equal,
                "uncertain_share": one.uncertain,
                "cpu_ms_an_image": round(median(one.cpu_ms), 1),
                "peak_mib": round(max(one.peak_mib)),
                "starts_s": rounded(one.starts_s),
                **against(rates, name),
            }
            for name, one in seen.items()
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
            "maskq is": one.get("maskq_is"),
            "times": one.get("maskq_over_it_median"),
            "by round": " ".join(f"{ratio:.2f}" for ratio in one.get("maskq_over_it", [])),
            "of the forward": one["efficiency"],
            "equal pixels": f"{one['equal_pixels']:.6%}",
            "uncertain": _percent(one["uncertain_share"]),
            "CPU-ms/image": one["cpu_ms_an_image"],
            "peak MiB": one["peak_mib"],
            "first mask s": one["starts_s"][0],
            "again": one["starts_s"][1] if len(one["starts_s"]) > 1 else None,
        }
        for name, one in figures["contenders"].items()
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.3%}"


def start_rows(seen: Mapping[str, Seen]) -> list[dict[str, Any]]:
    """Seconds from each start to the first mask; times: this median over maskq's."""
    medians = {name: median(one.starts_s) for name, one in seen.items()}
    ours = medians.get(OURS)
    return [
        {
            "contender": name,
            "first start s": one.starts_s[0],
            "later ones s": " ".join(f"{each:.1f}" for each in one.starts_s[1:]),
            "median over maskq's": medians[name] / ours if ours else None,
        }
        for name, one in seen.items()
    ]


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]
