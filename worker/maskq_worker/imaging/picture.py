"""The result of a reader: 8-bit pixels, and the steps that are still to be applied."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from maskq_worker.imaging.colour_spaces import ColourSpace


@dataclass(slots=True)
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
    notes: list[str] = field(default_factory=list)  # on samples, colours and damage
