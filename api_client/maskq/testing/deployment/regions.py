"""Counting the connected regions of each class in a mask, without numpy."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image


def regions_of(mask: PIL.Image.Image) -> Counter[int]:
    """Class id → its regions, where corners connect. mask: mode L."""
    pixels, width = mask.tobytes(), mask.width
    found: Counter[int] = Counter()
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number] = parents[parents[number]]
        return number

    above: list[tuple[int, int, int, int]] = []  # runs: first, one after the last, class, number
    for top in range(0, len(pixels), width):
        runs, first = [], 0
        for class_id, group in groupby(pixels[top : top + width]):
            after, number = first + len(list(group)), len(parents)
            parents.append(number)
            found[class_id] += 1
            for other_first, other_after, other_class, other in above:
                touches = other_first <= after and other_after >= first
                if touches and other_class == class_id and root(other) != root(number):
                    parents[root(other)] = root(number)
                    found[class_id] -= 1
            runs.append((first, after, class_id, number))
            first = after
        above = runs
    return found
