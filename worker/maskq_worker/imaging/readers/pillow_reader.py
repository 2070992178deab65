"""Reads images with Pillow: JPEG, PNG of up to 8 bits, WebP, BMP, GIF, AVIF, HEIF."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import replace
from typing import Final

from PIL import ExifTags, Image, PngImagePlugin

from maskq_worker.imaging.checks import OnPixels, check_size, frames_note
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.pixel_modes import rawmode_of, to_eight_bits
from maskq_worker.imaging.readers import isobmff

MAX_PROFILE: Final = 16 * 2**20  # bytes
NO_COLOUR: Final = "colours that its palette lacks shown black"
# As `warnings` stores it, to check whether it is set already.
_QUIET_PILLOW: Final = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_PILLOWS_LIMIT: Final = 89_478_485  # pixels, by default
_ADOBE_RGB: Final = 2  # EXIF's ColorSpace, as some cameras write it


def set_up(max_pixels: int) -> None:
    """Set Pillow's process-wide options. Only this function sets them, always to the same values.

    Its pixel limit must not refuse what MASKQ_MAX_IMAGE_PIXELS allows. Pillow raises at twice the
    limit, which bounds its allocations before `check_size`: a GIF's first frame may be larger than its
    screen.
    Its limit on a PNG's text also applies to the colour profile. Its warnings concern metadata that is
    not used; they are filtered, since `warnings.catch_warnings` is not thread-safe.
    """
    Image.MAX_IMAGE_PIXELS = max(max_pixels, _PILLOWS_LIMIT)
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE
    if _QUIET_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET_PILLOW[3].pattern)


def opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Open a file and read its header. Raises UnidentifiedImageError for other formats."""
    return Image.open(io.BytesIO(data), formats=formats)


def picture(data: bytes, formats: tuple[str, ...], max_pixels: int, on_pixels: OnPixels) -> Picture:
    """The first frame of a file. Raises PermanentError, and what Pillow raises."""
    with opened(data, formats) as source:
        check_size(source.size, max_pixels)
        on_pixels(source.width * source.height, 0)
        result = loaded(source, data)
    check_size(result.image.size, max_pixels)  # again: HEIF may be larger than its header says
    if result.format in ("AVIF", "HEIF") and result.icc is None:
        return result.with_colours(isobmff.space_of(data))
    return result


def loaded(source: Image.Image, data: bytes) -> Picture:
    """The first frame of an opened file."""
    rawmode, pixel_box = rawmode_of(source), _pixel_box(source)
    source.load()
    lacks_colours = _lacks_colours(source)
    image = to_eight_bits(source, rawmode)
    if image is source:
        image = image._new(image.im)  # the same pixels without the file, where `copy` takes memory
    notes = (NO_COLOUR,) if lacks_colours else ()
    return replace(described(source, image, data), pixel_box=pixel_box, notes=notes)


def described(source: Image.Image, image: Image.Image, data: bytes) -> Picture:
    """`image` with the metadata of `source`, its opened file."""
    icc = source.info.get("icc_profile")
    return Picture(
        image,
        source.format or "",
        icc=b"" if icc is None and "icc_profile" in source.info else icc,
        orientation=_orientation(source),
        is_upright=_is_upright(source, data),
        frames=_frames(source),
    )


def orientation_of(exif: bytes) -> int:
    """The orientation in a block of EXIF; 1 if there is none."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        return int(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata does not break the image
        return 1


def says_adobe_rgb(source: Image.Image) -> bool:
    """Whether EXIF declares Adobe RGB, by DCF's convention."""
    try:
        exif = source.getexif().get_ifd(ExifTags.IFD.Exif)
        if exif.get(ExifTags.Base.ColorSpace) == _ADOBE_RGB:
            return True
        return exif.get(ExifTags.Base.ColorSpace) == 0xFFFF and "R03" in str(
            source.getexif().get_ifd(ExifTags.IFD.Interop).get(1, "")
        )
    except Exception:  # noqa: BLE001 - broken metadata does not break the image
        return False


def _lacks_colours(source: Image.Image) -> bool:
    """Whether pixels use colours that the palette lacks."""
    if source.mode != "P" or source.palette is None:
        return False
    highest = source.getextrema()[1]
    return isinstance(highest, int) and 3 * highest >= len(source.palette.palette)


def _pixel_box(source: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of a GIF's first frame if it is smaller than its screen. Call it before `load`."""
    tiles = getattr(source, "tile", None)
    if source.format != "GIF" or not tiles or tiles[0][1] == (0, 0, *source.size):
        return None
    left, top, right, bottom = tiles[0][1]
    return left, top, right, bottom


def _frames(source: Image.Image) -> str | None:
    try:
        return frames_note(getattr(source, "n_frames", 1))
    except Exception:  # noqa: BLE001 - damage in a later frame; the first is whole
        return None


def _is_upright(source: Image.Image, data: bytes) -> bool:
    """Whether HEIF's decoder has rotated the image: it applies these boxes and ignores EXIF."""
    said = source.format == "HEIF" and source.info.get("original_orientation") in range(2, 9)
    return said and (b"irot" in data or b"imir" in data)


def _orientation(source: Image.Image) -> int:
    try:
        return int(source.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata does not break the image
        return 1
