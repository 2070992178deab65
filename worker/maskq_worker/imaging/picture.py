"""What a reader of one format hands on: 8-bit pixels and what is yet to be done to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from maskq_worker.imaging.colour_spaces import ColourSpace


@dataclass(slots=True)
class Picture:
    image: Image.Image  # L, LA, RGB, RGBA, CMYK or LAB
    format: str  # as Pillow names it
    icc: bytes | None = None  # the embedded profile; empty if there is one that cannot be unpacked
    space: ColourSpace | None = None  # where there is no profile
    orientation: int = 1  # EXIF's, still to be applied
    is_upright: bool = False  # its decoder has already turned it
    alpha: Image.Image | None = None  # L; where `image` has none of its own
    frames: str | None = None  # the note on other frames
    pixel_box: tuple[int, int, int, int] | None = None  # the box outside which there are no pixels
    notes: list[str] = field(default_factory=list)  # on samples, colours and damage
