"""TIFF by tifffile and imagecodecs: which page is shown, what its tags say, its samples as a picture.

Every combination of layout, compression, byte order and sample type is either read as its tags say
or refused by its name (docs/formats.md). Tags are not trusted: sizes are checked before pixels are
decoded.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import tifffile

from maskq_worker.imaging.checks import MAX_FRAMES, frames_note, invalid
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers.tiff import colours, segments

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SUB_IFDS: Final = 330
_DNG_VERSION: Final = 50706
_RAW_COLOURS: Final = (32803, 34892)  # of a sensor: colour filter array, linear raw
_MOST_SUB_IFDS: Final = 16

# It logs what it works around; what matters of that is refused here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def picture(data: bytes, max_pixels: int, on_pixels: Callable[[int, int], object]) -> Picture:
    """The first page that is not a thumbnail. Raises PermanentError, and what the decoders raise."""
    file = tifffile.TiffFile(
        io.BytesIO(data),
        is_ndpi=False,
        is_lsm=False,
        is_scanimage=False,
        is_stk=False,
        is_eer=False,
    )
    with file:
        page, notes, frames = _first_page(file)
        layout = segments.layout_of(page, data, max_pixels)
        on_pixels(layout.width * layout.height, layout.memory)
        samples = segments.read(page, data, layout)
        result = colours.picture(page, layout, samples)
    return replace(result, notes=(*notes, *result.notes), frames=frames)


def _first_page(file: tifffile.TiffFile) -> tuple[tifffile.TiffPage, list[str], str | None]:
    """The page that a viewer shows, notes on what is left, and the note on other pages."""
    pages = _pages(file)
    if not pages:
        raise invalid("the TIFF image is damaged or cut short: it has no pages")
    first = pages[0]
    sub_pages = _sub_pages(first) if _SUB_IFDS in first.tags else []
    if any(_is_raw(page) for page in (*pages[:2], *sub_pages)):
        raise _camera_raw()
    full = [page for page in pages if not _page_kind(page) & (_REDUCED | _MASK)]
    if not full and _SUB_IFDS in first.tags:
        full = [page for page in sub_pages if not _page_kind(page) & (_REDUCED | _MASK)]
        if not full:
            raise _camera_raw()
    notes = []
    if full and full[0] is not first:
        notes.append("its thumbnail left out")
    if any(_page_kind(page) & _MASK for page in pages):
        notes.append("transparency mask ignored")
    if len(pages) > MAX_FRAMES:
        return (full or pages)[0], notes, f"first of more than {MAX_FRAMES} frames"
    return (full or pages)[0], notes, frames_note(len(full))


def _pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """At most MAX_FRAMES + 1; none behind one that cannot be read."""
    pages: list[Any] = []
    for number in range(MAX_FRAMES + 1):
        try:
            pages.append(file.pages.get(number))
        except Exception:  # noqa: BLE001 - no more, or damage in a later one; the first is whole
            break
    return pages


def _sub_pages(page: tifffile.TiffPage) -> list[tifffile.TiffPage]:
    found: list[Any] = []
    try:
        for number in range(_MOST_SUB_IFDS):
            found.append(page.pages.get(number))  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001 - no more, or damaged
        return found
    return found


def _page_kind(page: tifffile.TiffPage) -> int:
    return page.subfiletype if isinstance(page.subfiletype, int) else 0


def _is_raw(page: tifffile.TiffPage) -> bool:
    return _DNG_VERSION in page.tags or page.photometric in _RAW_COLOURS


def _camera_raw() -> Exception:
    return invalid(
        "the object is a camera raw file, which is not accepted; export it as JPEG or TIFF"
    )
