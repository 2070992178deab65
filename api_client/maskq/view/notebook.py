"""How a notebook displays a result: a small picture and its classes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import Final

from PIL import Image

from maskq.contract import JobResult
from maskq.inert import printable
from maskq.view.pictures import coloured, data_url, fitted, shades

LONGEST_SIDE: Final = 1024  # px
_MOST_LABELS: Final = 12


def coloured_mask(mask: Image.Image, labels: Mapping[int, str]) -> Image.Image:
    """The mask with each class in its colour, RGB."""
    return coloured(mask, shades(mask, labels)).convert("RGB")


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG of LONGEST_SIDE at most."""
    buffer = io.BytesIO()
    _small(picture).save(buffer, "PNG")
    return buffer.getvalue()


def html(job_id: str, result: JobResult, picture: Image.Image | None) -> str:
    """A figure with a caption, or the caption alone if the picture is missing."""
    image = ""
    if picture is not None:
        url = data_url(_small(picture), "JPEG", quality=88)
        image = f'<img src="{url}" alt="" style="max-width:100%;height:auto;border-radius:6px">'
    facts = f"{result.width} × {result.height} px · {result.model} · job {job_id}"  # noqa: RUF001
    return (
        f'<figure style="margin:0">{image}<figcaption style="font-size:90%">'
        f"{escape(printable(facts))}<br>{escape(printable(_classes(result)))}</figcaption></figure>"
    )


def _small(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize(
        fitted(picture.size, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0
    )


def _classes(result: JobResult) -> str:
    parts = [f"{entry.label} {entry.share:.1%}" for entry in result.stats]
    parts = parts or list(result.labels.values())
    more = len(parts) - _MOST_LABELS
    return ", ".join(parts[:_MOST_LABELS]) + (f" and {more} more" if more > 0 else "")
