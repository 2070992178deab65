"""From bytes to an upright RGB image. The size is checked before pixels are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskq.contract import FailureCode
from maskq_worker.errors import JobError, TransientError
from maskq_worker.imaging.checks import OnPixels, invalid, too_large
from maskq_worker.imaging.colour import IGNORED, to_srgb
from maskq_worker.imaging.colour_spaces import ColourSpace
from maskq_worker.imaging.formats import bomb, damaged, reader_of, unidentified
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers import pillow_reader

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PART: Final = 1_000_000  # pixels that are converted at one time


@dataclass(frozen=True, slots=True)
class Decoded:
    image: Image.Image  # RGB, upright, without metadata
    format: str  # as Pillow names it: JPEG, PNG, …
    notes: tuple[str, ...]  # what was done to it: 'rotated upright', 'first of 3 frames', …


def decode(data: bytes, *, max_pixels: int, on_pixels: OnPixels = lambda *_: None) -> Decoded:
    """Decode the first frame of an image.

    on_pixels: called once, before they take memory, with the number of pixels and the bytes that
        decoding them takes; 0 bytes: what is usual for the format.

    Raises PermanentError `image_too_large` (pixels by the header, before any is decoded) or
    `invalid_image`, and TransientError `out_of_memory`.
    """
    if not data:
        raise invalid("the object is empty (0 bytes)")
    pillow_reader.set_up(max_pixels)
    try:
        return _finished(reader_of(data)(data, max_pixels, on_pixels))
    except (JobError, ImportError):
        raise
    except UnidentifiedImageError as error:
        raise invalid(unidentified(data)) from error
    except Image.DecompressionBombError as error:
        raise too_large(bomb(error, max_pixels)) from error
    except MemoryError as error:
        raise TransientError(
            FailureCode.OUT_OF_MEMORY, "the worker has not enough memory to decode the image"
        ) from error
    except Exception as error:  # decoders raise anything for damaged files
        raise invalid(damaged(data, error)) from error


def _finished(picture: Picture) -> Decoded:
    """Upright, in sRGB, on white."""
    image, coloured = _coloured(picture)
    image, flattened = _on_white(image, picture.pixel_box)
    turn = _UPRIGHT.get(picture.orientation)
    if turn is not None:
        image = image.transpose(turn)
    image.info.clear()  # else a comment or profile of the input would enter the outputs
    notes = (
        picture.frames,
        "rotated upright" if turn is not None or picture.is_upright else None,
        *picture.notes,
        coloured,
        flattened,
    )
    return Decoded(image, picture.format, tuple(note for note in notes if note))


def _coloured(picture: Picture) -> tuple[Image.Image, str | None]:
    """RGB or RGBA in the colours of sRGB, and what had to be done for it."""
    image = picture.image
    note: str | None
    alpha = picture.alpha
    if image.mode == "LA":
        image, alpha = image.getchannel("L"), image.getchannel("A")
    if picture.icc == b"":  # there is one, but it cannot be unpacked
        image, note = to_srgb(image, None)[0], IGNORED
    elif picture.icc is None and picture.space is not None and image.mode in ("L", "RGB", "RGBA"):
        image, note = _converted(image, picture.space)
    else:
        image, note = to_srgb(image, picture.icc)
    if alpha is not None:
        image.putalpha(alpha)
    return image, note


def _converted(image: Image.Image, space: ColourSpace) -> tuple[Image.Image, str | None]:
    """In place, part by part: a second image would take as much memory again."""
    if space.is_srgb():
        return to_srgb(image, None)
    step = max(1, _PART // image.width)
    for top in range(0, image.height, step):
        box = (0, top, image.width, min(top + step, image.height))
        levels = np.array(image.crop(box))
        colours = levels[..., np.newaxis] if image.mode == "L" else levels[..., :3]
        colours[...] = space.to_srgb(colours)
        image.paste(Image.fromarray(levels), box)
    return _plain_rgb(image) if image.mode == "L" else image, space.note


def _on_white(
    image: Image.Image, pixel_box: tuple[int, int, int, int] | None
) -> tuple[Image.Image, str | None]:
    """RGB from RGB or RGBA; around `pixel_box`, if given, there is nothing."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    if alpha is None and pixel_box is None:
        return _plain_rgb(image), None
    white = Image.new("RGB", image.size, "white")
    if pixel_box is None:
        white.paste(image, mask=alpha)
    else:
        white.paste(image.crop(pixel_box), pixel_box, alpha.crop(pixel_box) if alpha else None)
    return white, "transparency laid on white"


def _plain_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy
