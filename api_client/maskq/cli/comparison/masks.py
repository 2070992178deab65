"""How much two masks of the same image differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

_COLOURS = 256 * 256


class NotComparable(Exception):
    """The two masks cannot be compared pixel by pixel; the text says why."""


def confusion(first: PIL.Image.Image, second: PIL.Image.Image) -> Counter[tuple[int, int]]:
    """Pixels by (class id in the first mask, class id in the second). Raises NotComparable."""
    from PIL import Image

    if first.size != second.size:
        raise NotComparable(f"the sizes differ: {first.size} and {second.size}")
    if {first.mode, second.mode} - {"P", "L"}:
        raise NotComparable("a mask has more than 256 classes")
    bands = [Image.frombytes("L", one.size, one.tobytes()) for one in (first, second)]
    pairs = Image.merge("RGB", [*bands, Image.new("L", first.size)]).getcolors(_COLOURS) or []
    return Counter({(pixel[0], pixel[1]): count for count, pixel in pairs})  # type: ignore[index]


def check_labels(first: Mapping[int, str], second: Mapping[int, str]) -> None:
    """Raises NotComparable if a class id means something else in the second result."""
    for class_id in first.keys() & second.keys():
        if first[class_id] != second[class_id]:
            raise NotComparable(
                f"class {class_id} is {first[class_id]!r} in one model and {second[class_id]!r} in "
                f"the other"
            )


@dataclass(slots=True)
class Differences:
    """Adds up pairs of masks."""

    pixels: Counter[tuple[int, int]] = field(default_factory=Counter)
    labels: dict[int, str] = field(default_factory=dict)
    pairs: dict[str, float] = field(default_factory=dict)  # name → share of its pixels that differ

    def add(self, name: str, found: Counter[tuple[int, int]], labels: Mapping[int, str]) -> None:
        self.pixels += found
        self.labels |= labels
        self.pairs[name] = differing(found)

    @property
    def share(self) -> float:
        """The share of all pixels that differ, 0 to 1."""
        return differing(self.pixels)

    def iou(self) -> dict[int, float]:
        """Class id → intersection over union of the two models, of the classes that one of them has."""
        first, second = self._totals(0), self._totals(1)
        return {
            one: self.pixels[one, one] / (first[one] + second[one] - self.pixels[one, one])
            for one in sorted(first.keys() | second.keys())
        }

    def worst(self, count: int) -> list[tuple[str, float]]:
        """The pairs with the largest shares of differing pixels."""
        return sorted(self.pairs.items(), key=lambda one: (-one[1], one[0]))[:count]

    def confusions(self, count: int) -> list[tuple[tuple[int, int], float]]:
        """Pairs of class ids that differ at most pixels, with their shares of all pixels."""
        total = sum(self.pixels.values())
        unequal = [(pair, pixels) for pair, pixels in self.pixels.items() if pair[0] != pair[1]]
        unequal.sort(key=lambda one: (-one[1], one[0]))
        return [(pair, pixels / total) for pair, pixels in unequal[:count]]

    def _totals(self, side: int) -> Counter[int]:
        totals: Counter[int] = Counter()
        for pair, count in self.pixels.items():
            totals[pair[side]] += count
        return totals


def differing(pixels: Mapping[tuple[int, int], int]) -> float:
    """The share of pixels whose classes differ; 0 without pixels."""
    total = sum(pixels.values())
    return sum(_of_unequal(pixels.items())) / total if total else 0.0


def _of_unequal(items: Iterable[tuple[tuple[int, int], int]]) -> Iterable[int]:
    return (count for (first, second), count in items if first != second)
