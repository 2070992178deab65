"""Which graphs a batch runs through: a larger one with padding, or several smaller ones."""

from __future__ import annotations

from collections.abc import Mapping


def bucket_sizes(largest: int) -> tuple[int, ...]:
    """1, 2, 4, … and `largest` itself, from small to large."""
    powers = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*powers, largest)


class Plan:
    """Splits batches into buckets by the measured time of each bucket."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        """seconds: of a run by bucket, which does not depend on the images in it."""
        self._seconds = dict(seconds)
        self._first: list[int] = [0]  # by number of images: the bucket of the first part
        self._total: list[float] = [0.0]

    def split(self, images: int) -> list[tuple[int, int]]:
        """(bucket, images in it) of each part, in the least total time; of equals the fewest parts."""
        while len(self._first) <= images:
            self._extend()
        parts = []
        while images:
            bucket = self._first[images]
            inside = min(bucket, images)
            parts.append((bucket, inside))
            images -= inside
        return parts

    def _extend(self) -> None:
        """Find the best first part for one more image, from the best ones for fewer."""
        images = len(self._first)
        total, bucket = min(
            (seconds + self._total[max(0, images - bucket)], -bucket)
            for bucket, seconds in self._seconds.items()
        )
        self._first.append(-bucket)
        self._total.append(total)
