"""Masks and photographs as small pictures inside a page."""

from __future__ import annotations

import base64
import colorsys
import io
import sys
import warnings
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageOps

from maskq.errors import InvalidRequest

NO_CLASS: Final = 255  # in a picture of slots
MOST_CLASSES: Final = 255  # slots 0 to 254; what covers less than that many others is left out
_GOLDEN_RATIO: Final = 0.618033988749895
# The worker's own list. A page must not be the way to some rare decoder.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")


@dataclass(frozen=True, slots=True)
class Shade:
    """One class as it is shown."""

    id: int
    label: str
    share: float  # of all pixels, 0..1
    colour: tuple[int, int, int]  # RGB

    @property
    def percent(self) -> str:
        return "<0.1 %" if self.share < 0.0005 else f"{self.share * 100:.1f} %"


def shades(mask: Image.Image, labels: Mapping[int, str]) -> list[Shade]:
    """The classes of a mask (mode P, L or I;16; pixel = class id) that have a label, largest first."""
    pixels = mask.width * mask.height
    palette = mask.getpalette("RGB") if mask.mode == "P" else None
    counted = sorted(_counts(mask).items(), key=lambda pair: (-pair[1], pair[0]))
    found = [
        Shade(class_id, labels[class_id], count / pixels, _colour(class_id, palette))
        for class_id, count in counted
        if class_id in labels
    ]
    return found[:MOST_CLASSES]


def slots(mask: Image.Image, shown: list[Shade]) -> Image.Image:
    """The mask as gray, mode L: pixel = place in `shown`, NO_CLASS where it is none of them."""
    place = {shade.id: slot for slot, shade in enumerate(shown)}
    if mask.mode == "I;16":
        body = bytes(place.get(class_id, NO_CLASS) for class_id in _sixteen_bits(mask))
    else:
        body = mask.tobytes().translate(bytes(place.get(i, NO_CLASS) for i in range(256)))
    return Image.frombytes("L", mask.size, body)


def coloured(mask: Image.Image, shown: list[Shade]) -> Image.Image:
    """The mask as people look at it, mode P: each class in its colour, black elsewhere."""
    picture = slots(mask, shown)
    picture.putpalette(bytes(part for shade in shown for part in shade.colour).ljust(768, b"\0"))
    return picture


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height no longer than `side`, px; never enlarged."""
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def open_photo(body: bytes, size: tuple[int, int]) -> Image.Image:
    """RGB, upright. Raises InvalidRequest unless it is an image of this size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its metadata, and of a size that is looked at here
            source = Image.open(io.BytesIO(body), formats=_FORMATS)
            if source.size not in (size, size[::-1]):
                raise InvalidRequest(
                    f"what is there now is {source.width}x{source.height} px, the result is of "
                    f"{size[0]}x{size[1]}"
                )
            upright = _rgb(ImageOps.exif_transpose(source))
    except InvalidRequest:
        raise
    except Exception as error:  # whatever a decoder raises on bytes that are not what they claim
        raise InvalidRequest(f"it cannot be decoded here: {error}") from error
    if upright.size != size:
        raise InvalidRequest(f"it is {upright.width}x{upright.height} px, the result is not")
    return upright


def data_url(image: Image.Image, kind: str, **options: int) -> str:
    """The image inside a URL; kind: PNG or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _counts(mask: Image.Image) -> dict[int, int]:
    if mask.mode == "I;16":
        return Counter(_sixteen_bits(mask))
    return {class_id: count for class_id, count in enumerate(mask.histogram()) if count}


def _sixteen_bits(mask: Image.Image) -> array[int]:
    values = array("H", mask.tobytes())
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _colour(class_id: int, palette: list[int] | None) -> tuple[int, int, int]:
    """As the mask's own palette has it; one of many where it has none."""
    if palette and len(palette) >= 3 * class_id + 3:
        red, green, blue = palette[3 * class_id : 3 * class_id + 3]
        return red, green, blue
    parts = colorsys.hsv_to_rgb(class_id * _GOLDEN_RATIO % 1.0, 0.7, 0.9)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        high = image.tobytes()[0 if image.mode == "I;16B" else 1 :: 2]  # of each two bytes
        return Image.frombytes("L", image.size, high).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
