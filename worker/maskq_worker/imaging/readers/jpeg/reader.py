"""Reads JPEG with libjpeg-turbo. Its warnings report missing pixels; Pillow drops them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.imaging import colour_spaces
from maskq_worker.imaging.checks import check_size, invalid
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers import pillow_reader
from maskq_worker.imaging.readers.jpeg.layout import Layout, layout_of

USUAL_SCANS: Final = 100  # ten are usual
MAX_SCANNED: Final = 10**10  # pixels over all scans, some 15 s
_EOI: Final = b"\xff\xd9"
_FEWEST_ZEROS: Final = 64  # zeros at the end that are no pixels
_TALLEST: Final = 65_500  # rows that libjpeg accepts
_MOST_PADDING: Final = 16  # bytes that encoders may leave behind the last row
_PROCESSES: Final = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical",
    0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical",
}  # fmt: skip
_MODES: Final = {"L": ("GRAY", "L"), "RGB": ("RGBX", "RGBX"), "CMYK": ("CMYK", "CMYK;I")}
_LEFT_OVER: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_HARMLESS: Final = (
    "Invalid SOS parameters", "Unknown Adobe color transform", "unknown JFIF revision",
)  # fmt: skip
_UNUSUAL: Final = "determine subsampling"
_OUT_OF_ORDER: Final = "Inconsistent progression"

Pixels = NDArray[np.uint8]


def picture(data: bytes, max_pixels: int, on_pixels: Callable[[int, int], object]) -> Picture:
    """The first image of the file. Raises PermanentError for pixels that are missing or damaged."""
    layout = layout_of(data)
    if not layout.process:
        raise invalid("the JPEG image is damaged or cut short: its header cannot be read")
    check_size((layout.width, layout.height), max_pixels)
    check_process(layout)
    with pillow_reader.opened(data, ("JPEG",)) as source:
        # Of a progressive image all coefficients are held as well.
        on_pixels(layout.width * layout.height, 0)
        image, notes = _decoded(data, layout, source.mode)
        result = pillow_reader.described(source, image, data)
        if result.icc is None and image.mode == "RGB" and pillow_reader.says_adobe_rgb(source):
            result = result.with_colours(colour_spaces.adobe_rgb())
    return result.with_notes(notes)


def check_process(layout: Layout) -> None:
    """Raises PermanentError for kinds of JPEG that are not read, and for scans that take minutes."""
    if layout.process in _PROCESSES:
        raise invalid(f"the JPEG image is {_PROCESSES[layout.process]}, which is not supported")
    if layout.precision != 8:
        raise invalid(f"the JPEG image has {layout.precision} bits, which is not supported; 8 are")
    scans = len(layout.scans)
    most = max(USUAL_SCANS, MAX_SCANNED // max(1, layout.width * layout.height))
    if scans > most:
        raise invalid(f"the JPEG image is built up in {scans} scans; at most {most} are read")


def check_pixels(data: bytes, layout: Layout) -> list[str]:
    """Raises PermanentError for pixels that are missing or damaged; else notes on the file."""
    try:
        return _checked_pixels(
            data, layout, "CMYK" if len(layout.components) == 4 else "GRAY", factor=8
        )[1]
    except _UnusualSampling:
        return _decode_by_pillow(data, layout)[1]


def _decoded(data: bytes, layout: Layout, mode: str) -> tuple[Image.Image, list[str]]:
    colours, raw = _MODES[mode]
    try:
        pixels, notes = _checked_pixels(data, layout, colours, factor=1)
    except _UnusualSampling:
        return _decode_by_pillow(data, layout)
    if raw == mode:
        return Image.fromarray(pixels.reshape(pixels.shape[:2])), notes
    return Image.frombytes(mode, (layout.width, layout.height), pixels, "raw", raw), notes


class _UnusualSampling(Exception):
    """Sampling factors that libjpeg-turbo's own interface does not read, but libjpeg's does."""


def _decode_by_pillow(data: bytes, layout: Layout) -> tuple[Image.Image, list[str]]:
    """By Pillow, which says nothing of missing pixels; these are known by libjpeg's middle gray.

    A header that says more rows shows by them whether the file has more than it should.
    """
    body, notes = _with_end_marker(data, layout)
    image = _loaded(body)
    taller = bytearray(body)
    height = (layout.height // layout.step + 2) * layout.step
    taller[layout.size_at : layout.size_at + 2] = min(height, _TALLEST).to_bytes(2, "big")
    corner = (max(0, layout.width - 8), layout.height - 1, layout.width, layout.height)
    start = (0, height - 8, 8, height)
    if _is_middle_gray(image.crop(corner)):
        raise invalid("the JPEG image is damaged or cut short: its last pixels are missing")
    if height <= _TALLEST and not _is_middle_gray(_loaded(bytes(taller)).crop(start)):
        raise invalid(
            f"the JPEG image is damaged: pixels follow the last of its {layout.height} rows"
        )
    return image, notes


def _loaded(body: bytes) -> Image.Image:
    with pillow_reader.opened(body, ("JPEG",)) as source:
        source.load()
        return source._new(source.im)


def _is_middle_gray(image: Image.Image) -> bool:
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(band in ((128, 128), (127, 127)) for band in bands)


def _checked_pixels(
    data: bytes, layout: Layout, colours: str, *, factor: int
) -> tuple[Pixels, list[str]]:
    """The pixels and notes on what is odd about the file.

    libjpeg's first warning ends the decoding. Where it is one about harmless things, the image is
    decoded again without these, since libjpeg reports no second one.
    """
    if layout.missing_components:
        raise invalid("the JPEG image is cut short: it lacks the scan of a colour channel")
    if any(scan.has_hole for scan in layout.scans):
        raise invalid("the JPEG image is damaged: a part of its pixels is overwritten by zeros")
    notes = ["its last scans are missing: coarser than it was"] if layout.is_coarse else []
    body, said = _with_end_marker(data, layout)
    notes += said
    outcome = _decode_strictly(body, colours, factor)
    if isinstance(outcome, str) and _UNUSUAL in outcome:
        raise _UnusualSampling
    if isinstance(outcome, str) and any(text in outcome for text in _HARMLESS):
        again = _decode_strictly(layout.bare(body), "CMYK" if colours == "CMYK" else "GRAY", 8)
        outcome = again if isinstance(again, str) else _decode_leniently(body, colours, factor)
    if isinstance(outcome, str):
        notes.append(_note_for(outcome, layout))
        outcome = _decode_leniently(body, colours, factor)
    return outcome, notes


def _with_end_marker(data: bytes, layout: Layout) -> tuple[bytes, list[str]]:
    """The image without what lies behind it, and with an end."""
    if layout.end is not None:
        return data[: layout.end], []
    body = data.rstrip(b"\0")
    if len(data) - len(body) < _FEWEST_ZEROS:
        body = data
    elif body.endswith(b"\xff"):
        body += b"\0"  # a stuffed FF is a part of the pixels
    return body + _EOI, ["ends too early, after its last pixel"]


def _decode_strictly(body: bytes, colours: str, factor: int) -> Pixels | str:
    """Pixels, or libjpeg's first warning."""
    try:
        return _pixels(body, colours, factor, strict=True)
    except ValueError as error:
        return str(error)


def _decode_leniently(body: bytes, colours: str, factor: int) -> Pixels:
    return _pixels(body, colours, factor, strict=False)


def _pixels(body: bytes, colours: str, factor: int, *, strict: bool) -> Pixels:
    smallest = {"min_height": 1, "min_width": 1, "min_factor": factor} if factor > 1 else {}
    return simplejpeg.decode_jpeg(body, colours, strict=strict, **smallest)


def _note_for(warning: str, layout: Layout) -> str:
    """The note for a warning. Raises PermanentError where it means that pixels are wrong."""
    if _OUT_OF_ORDER in warning:
        return "its scans contradict one another"
    left_over = _LEFT_OVER.search(warning)
    if left_over is None:
        raise invalid(f"the JPEG image is damaged or cut short: {warning}")
    # What is left behind the last row may be padding, or rows that the header does not count.
    count, blocks = int(left_over[1]), -(-layout.width // 8)
    if count > max(_MOST_PADDING, blocks // 4):
        raise invalid(
            f"the JPEG image is damaged: {count} bytes of pixels follow the last of its "
            f"{layout.height} rows"
        )
    return f"{count} bytes after its last pixel ignored"
