"""TIFF: every combination of layout, compression, byte order and sample type is the sound picture.

`pytest -s` prints how many files there are of each kind; tests/images/tiff_matrix.py all together.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from images.tiff_matrix import File, kinds, layouts_of, others, whole_images

from maskq_worker.imaging import decode

LIMIT = 1_000_000  # px


def wrong(files: Iterable[File]) -> tuple[int, list[str]]:
    """How many files, and what is wrong with which."""
    count, found = 0, []
    for file in files:
        count += 1
        result = decode(file.data, max_pixels=LIMIT)
        off = np.abs(np.asarray(result.image).astype(int) - file.kind.pixels).max()
        if off > file.kind.tolerance:
            found.append(f"{file.name}: {off} levels off, {result.notes}")
        elif file.kind.note and file.kind.note not in result.notes:
            found.append(f"{file.name}: {result.notes}")
    return count, found


@pytest.mark.parametrize("kind", kinds())
def test_every_layout_of_a_kind_shows_its_picture(kind: str) -> None:
    count, found = wrong(layouts_of(kind))
    print(f"{kind}: {count} files")
    assert found == []
    assert count >= 20


def test_bigtiff_fill_order_and_strips_of_any_length() -> None:
    count, found = wrong(others())
    print(f"others: {count} files")
    assert found == []
    assert count > 300


def test_strips_and_tiles_that_are_images_themselves() -> None:
    """JPEG, JPEG 2000, WebP and LERC inside a TIFF."""
    count, found = wrong(whole_images())
    print(f"whole images: {count} files")
    assert found == []
    assert count > 60
