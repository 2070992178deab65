"""Encodes masks, overlays and the like as image files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw

from maskq.contract.jobs import ClassStats
from maskq_worker.model.checkpoint.labels import PALETTE_COLOURS, palette
from maskq_worker.outputs.classes import rgb
from maskq_worker.outputs.fonts import Lettering
from maskq_worker.outputs.png import COMPRESS_LEVEL, palette_png

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAY_ALPHA: Final = 0.5  # of the mask's colours over the image
OVERLAY_QUALITY: Final = 90
_JPEG_SIDE: Final = 65_500  # px


def mask_png(mask: NDArray[Any], num_labels: int) -> bytes:
    """A PNG whose pixels are class ids: a palette PNG, or 16-bit gray for over 256 classes."""
    if mask.dtype == np.uint8:
        return palette_png(mask, palette(num_labels))
    return _saved(Image.fromarray(mask), "PNG", compress_level=COMPRESS_LEVEL)


def overlay_jpeg(
    image: Image.Image,
    mask: NDArray[Any],
    num_labels: int,
    alpha: float = OVERLAY_ALPHA,
    legend: Sequence[ClassStats] = (),
) -> bytes:
    """The image with the colours of its classes over it, and a legend below if there is one."""
    ids = mask if mask.dtype == np.uint8 else (mask % PALETTE_COLOURS).astype(np.uint8)
    blended = Image.blend(image, _coloured(ids, num_labels).convert("RGB"), alpha)
    tinted = mask < num_labels
    if not tinted.all():
        blended = Image.composite(blended, image, Image.fromarray(tinted))
    if legend:
        blended = _with_legend(blended, legend, num_labels)
    return _saved(blended, "JPEG", quality=OVERLAY_QUALITY)


def confidence_png(confidence: NDArray[np.uint8] | None) -> bytes:
    """Gray, (H, W): 255 times the probability of the class that won."""
    if confidence is None:
        raise ValueError("an output needs the confidence, but the model was not asked to keep it")
    return _saved(Image.fromarray(confidence), "PNG", compress_level=COMPRESS_LEVEL)


def uncertain_png(uncertain: NDArray[np.bool_] | None) -> bytes:
    """1 bit a pixel, (H, W): white where the class is uncertain."""
    if uncertain is None:
        raise ValueError(
            "an output needs the uncertain pixels, but the model was not asked for them"
        )
    return _saved(Image.fromarray(uncertain), "PNG", compress_level=COMPRESS_LEVEL)


def binary_png(mask: NDArray[Any], class_id: int) -> bytes:
    """1 bit a pixel: white where the class is."""
    return _saved(Image.fromarray(mask == class_id), "PNG", compress_level=COMPRESS_LEVEL)


def _with_legend(
    picture: Image.Image, classes: Sequence[ClassStats], num_labels: int
) -> Image.Image:
    """The picture with rows of colour, label and share below it, as many as fit into a JPEG."""
    size = min(max(picture.width // 45, 12), 40)  # px of the letters
    letters, row, swatch = Lettering(size), size * 2, round(size * 1.2)
    texts = [f"{entry.label}  {_percent(entry.share)}" for entry in classes]
    column = round(max(map(letters.width, texts))) + swatch + 2 * size
    columns = max(1, (picture.width - size) // column)
    rows = min(-(-len(texts) // columns), max(0, (_JPEG_SIDE - picture.height - size) // row))
    if not rows:
        return picture
    whole = Image.new("RGB", (picture.width, picture.height + rows * row + size), "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for number, (entry, text) in enumerate(zip(classes, texts, strict=True)):
        across, down = number % columns, number // columns
        if down == rows:
            break
        left, middle = size + across * column, picture.height + size // 2 + down * row + row // 2
        box = (left, middle - swatch // 2, left + swatch, middle + swatch // 2)
        draw.rectangle(box, fill=rgb(entry.id, num_labels), outline="#808080")
        letters.draw(draw, (left + swatch + size // 2, middle), text)
    return whole


def _percent(share: float) -> str:
    return "<0.1 %" if share < 0.0005 else f"{share:.1%}".replace("%", " %")


def _coloured(mask: NDArray[np.uint8], num_labels: int) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(palette(num_labels))  # makes it mode P, its pixels unchanged
    return image


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
