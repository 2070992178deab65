"""The result of a reader: 8-bit pixels, and the steps that are still to be applied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image

from maskq_worker.imaging.colour_spaces import ColourSpace


@dataclass(frozen=True, slots=True)
class Picture:
    image: Image.Image  # L, LA, RGB, RGBA, CMYK or LAB
    format: str  # as Pillow names it
    icc: bytes | None = None  # the embedded profile; empty if it cannot be unpacked
    space: ColourSpace | None = None  # if there is no profile
    orientation: int = 1  # EXIF's, not applied yet
    is_upright: bool = False  # its decoder has rotated it already
    alpha: Image.Image | None = None  # L; if `image` has no alpha itself
    frames: str | None = None  # the note on other frames
    pixel_box: tuple[int, int, int, int] | None = None  # the box outside which there are no pixels
    notes: tuple[str, ...] = ()  # on samples, colours and damage

    def with_colours(self, found: ColourSpace | str | None) -> Picture:
        """With the colours that a file describes by numbers; a text is a note why they are ignored."""
        if isinstance(found, str):
            return self.with_notes([found])
        return self if found is None else replace(self, space=found)

    def with_notes(self, notes: Iterable[str]) -> Picture:
        """With further notes."""
        return replace(self, notes=(*self.notes, *notes))
