"""From bytes to an upright RGB image, within limits: size first, pixels after."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from maskq.contract import FailureCode
from maskq_worker.errors import JobError, PermanentError, TransientError

# An allow-list is the main defence: Pillow's rarer decoders are where its security fixes go.
# JPEG includes MPO, the JPEGs with a second picture in them that many phones write.
FORMATS: Final = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    *(("AVIF",) if features.check("avif") else ()),
)
MAX_SIDE: Final = 65_500  # px: as much as JPEG, and so an overlay, can hold

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# As `warnings` keeps it, to see whether it is there already.
_QUIET_PILLOW: Final = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_SIGNATURES: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif", "HEIF"),
    (4, b"ftyp", "MP4 or QuickTime video"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<", "HTML or XML"),
    (0, b"{", "JSON"),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    image: Image.Image  # RGB, upright, without metadata
    format: str  # as Pillow names it: JPEG, PNG, …
    notes: tuple[str, ...]  # what was done to it: 'rotated upright', 'first of 3 frames', …


def decode(data: bytes, *, max_bytes: int | None, max_pixels: int) -> Decoded:
    """Decode the first frame of an image.

    Raises PermanentError `image_too_large` (bytes, or pixels by the header, before any pixel is
    decoded) or `invalid_image`, and TransientError `out_of_memory`.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise _too_large(f"the image has {len(data)} bytes; at most {max_bytes} are accepted")
    if not data:
        raise _invalid("the object is empty (0 bytes)")
    _set_pillow_up()
    try:
        with _open(data) as source:
            _check_size(source.size, max_pixels)
            return _decoded(source)
    except JobError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(f"the image decompresses to more than is accepted: {error}") from error
    except MemoryError as error:
        raise TransientError(
            FailureCode.OUT_OF_MEMORY, "the worker has not enough memory to decode the image"
        ) from error
    except Exception as error:  # whatever a decoder raises on bytes that are not what they claim
        reason = str(error).strip() or type(error).__name__
        raise _invalid(f"the {_seen(data)} image is damaged or cut short: {reason}") from error


def _set_pillow_up() -> None:
    """Pillow's process-wide switches, set here and nowhere else, each to the same value always.

    Its pixel limit would refuse what MASKQ_MAX_IMAGE_PIXELS allows; `_check_size` stands in its
    place. Its warnings are about metadata nobody reads; a filter of its own is set, since
    `warnings.catch_warnings` is not safe with several job threads.
    """
    Image.MAX_IMAGE_PIXELS = None
    if _QUIET_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET_PILLOW[3].pattern)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _invalid(_unidentified(data)) from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise _invalid(f"the image is {width}x{height} px")
    if width * height > max_pixels:
        raise _too_large(
            f"the image is {width}x{height} px, {width * height} pixels; at most {max_pixels} are "
            "accepted"
        )
    if max(size) > MAX_SIDE:
        raise _too_large(
            f"the image is {width}x{height} px; at most {MAX_SIDE} px on a side are accepted"
        )


def _decoded(source: Image.Image) -> Decoded:
    rotated = _orientation(source) in _UPRIGHT  # asked first: TIFF is turned while it loads
    source.load()
    image, converted = _rgb(source)
    turn = _UPRIGHT.get(_orientation(source))
    if turn is not None:
        image = image.transpose(turn)
    image.info.clear()  # else a comment or profile of the input would enter the outputs
    frames = _frames(source)
    notes = (
        f"first of {frames} frames" if frames > 1 else None,
        "rotated upright" if rotated else None,
        converted,
    )
    return Decoded(image, source.format or "", tuple(note for note in notes if note))


def _frames(source: Image.Image) -> int:
    try:
        return int(getattr(source, "n_frames", 1))
    except Exception:  # noqa: BLE001 - damage in a later frame; the first is whole
        return 1


def _orientation(source: Image.Image) -> int:
    try:
        return int(source.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata does not break the image
        return 1


def _rgb(source: Image.Image) -> tuple[Image.Image, str | None]:
    """8-bit RGB from any mode Pillow has, and what had to be done for it."""
    if source.mode.startswith("I;16"):
        return _scaled(np.asarray(source), 65535.0), "scaled from 16 bits"
    if source.mode in ("I", "F"):
        values = np.asarray(source)
        return _scaled(values, _full_scale(values)), f"scaled from {source.mode} samples"
    if source.has_transparency_data:
        return _on_white(source.convert("RGBA"))
    return source.convert("RGB"), None


def _full_scale(values: np.ndarray) -> float | None:
    """What 'white' is in samples of 32 bits, which do not say: the smallest usual range that holds.

    None where no usual range does; then the image's own lowest and highest values are taken.
    """
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() < 0:
        return None
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    return next((scale for scale in usual if finite.max() <= scale), None)


def _scaled(values: np.ndarray, white: float | None) -> Image.Image:
    """Gray (H, W) of any number type to RGB: 0..white becomes 0..255; no number becomes black."""
    gray = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    black = 0.0
    if white is None:
        black, white = float(gray.min()), float(gray.max())
    gray -= black
    gray *= 255.0 / max(white - black, 1e-12)
    return Image.fromarray(gray.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> tuple[Image.Image, str | None]:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB"), None
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white, "transparency laid on white"


def _unidentified(data: bytes) -> str:
    seen = _seen(data)
    accepted = ", ".join(FORMATS)
    if seen.upper() in FORMATS:
        return f"the {seen} image is damaged or cut short: its header cannot be read"
    if seen:
        return f"the object is {seen}, which is not accepted; accepted are {accepted}"
    return f"the object is no image of a known format; accepted are {accepted}"


def _seen(data: bytes) -> str:
    """The format that the first bytes speak of; empty if unknown."""
    start = data[:256].lstrip()
    for offset, signature, name in _SIGNATURES:
        if start[offset:].startswith(signature):
            return name
    return ""


def _invalid(message: str) -> PermanentError:
    return PermanentError(FailureCode.INVALID_IMAGE, message)


def _too_large(message: str) -> PermanentError:
    return PermanentError(FailureCode.IMAGE_TOO_LARGE, message)
