"""From bytes to an upright RGB image, within limits: size first, pixels after."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError, features

from maskq.contract import FailureCode
from maskq_worker.colour import IGNORED, to_srgb
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.images_modes import rawmode_of, to_eight_bits

# An allow-list is the main defence: Pillow's rarer decoders are where its security fixes go.
# JPEG includes MPO, the JPEGs with a second picture in them that many phones write. HEIF joins
# where its reader is installed (`pip install maskq[heic]`), and only for a file that says it is HEIF.
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
MAX_FRAMES: Final = 1000  # counted of a TIFF, where counting takes time; a note says more than that

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
MAX_TILE: Final = 4096 * 4096  # pixels of a TIFF's tile, where its image is no larger
_PILLOWS_LIMIT: Final = 89_478_485  # pixels, by default
_MAX_PROFILE: Final = 16 * 2**20  # bytes
_TIFF_REDUCED: Final = 254  # tag; odd: this page is a smaller copy of another picture of the file
_TIFF_SUB_IFDS: Final = 330
_TIFF_TILE_WIDTH: Final = 322
_TIFF_TILE_LENGTH: Final = 323
_DNG_VERSION: Final = 50706
_SIGNATURES: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif", "HEIF"),
    (4, b"ftypmsf", "HEIF"),
    (4, b"ftyp", "MP4 or QuickTime video"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
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


def decode(
    data: bytes,
    *,
    max_pixels: int,
    on_pixels: Callable[[int], object] = lambda _: None,
) -> Decoded:
    """Decode the first frame of an image.

    on_pixels: called with their number before they take memory.

    Raises PermanentError `image_too_large` (pixels by the header, before any is decoded) or
    `invalid_image`, and TransientError `out_of_memory`.
    """
    if not data:
        raise _invalid("the object is empty (0 bytes)")
    _set_pillow_up(max_pixels)
    try:
        with _open(data) as source:
            _check_size(source.size, max_pixels)
            _check_tiff(source)
            on_pixels(source.width * source.height)
            return _decoded(source, data, max_pixels)
    except JobError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(_bomb(error, max_pixels)) from error
    except MemoryError as error:
        raise TransientError(
            FailureCode.OUT_OF_MEMORY, "the worker has not enough memory to decode the image"
        ) from error
    except Exception as error:  # whatever a decoder raises on bytes that are not what they claim
        raise _invalid(_damaged(data, error)) from error


def _set_pillow_up(max_pixels: int) -> None:
    """Pillow's process-wide switches, set here and nowhere else, each to the same value always.

    Its pixel limit must not refuse what MASKQ_MAX_IMAGE_PIXELS, of which a process has one, allows.
    It refuses twice as much, and so bounds what Pillow sets aside before `_check_size` can look: a
    GIF's first frame may be larger than its screen. Its limit on a PNG's text also holds for the
    colour profile.
    Its warnings are about metadata nobody reads; a filter of its own is set, since
    `warnings.catch_warnings` is not safe with several job threads.
    """
    Image.MAX_IMAGE_PIXELS = max(max_pixels, _PILLOWS_LIMIT)
    PngImagePlugin.MAX_TEXT_CHUNK = _MAX_PROFILE
    if _QUIET_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET_PILLOW[3].pattern)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats(data))
    except UnidentifiedImageError as error:
        raise _invalid(_unidentified(data)) from error


def _formats(data: bytes) -> tuple[str, ...]:
    return (*FORMATS, "HEIF") if _seen(data) in ("HEIC", "HEIF") and _reads_heif() else FORMATS


@cache
def _reads_heif() -> bool:
    """Whether the extra is installed; if so, Pillow knows of it from now on."""
    try:
        import pillow_heif  # here, since it is an extra, and most processes never see a HEIC
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


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


def _check_tiff(source: Image.Image) -> None:
    """Raises PermanentError for camera raw files, in which a TIFF reader finds a thumbnail, and for
    tiles far larger than their image, which would be unpacked whole."""
    tags = getattr(source, "tag_v2", {})
    tile = tags.get(_TIFF_TILE_WIDTH, 0), tags.get(_TIFF_TILE_LENGTH, 0)
    if not all(isinstance(side, int) for side in tile):
        raise _invalid("the TIFF image is damaged or cut short: its tiles have no one size")
    if tile[0] * tile[1] > max(2 * source.width * source.height, MAX_TILE):
        raise _too_large(
            f"the image is {source.width}x{source.height} px, but in tiles of {tile[0]}x{tile[1]}"
        )
    reduced = tags.get(_TIFF_REDUCED, 0)
    is_thumbnail = isinstance(reduced, int) and reduced & 1 and _TIFF_SUB_IFDS in tags
    if is_thumbnail or _DNG_VERSION in tags:
        raise _invalid(
            "the object is a camera raw file, which is not accepted; export it as JPEG or TIFF"
        )


def _decoded(source: Image.Image, data: bytes, max_pixels: int) -> Decoded:
    rawmode, drawn = rawmode_of(source), _drawn(source)
    # Of a TIFF asked before `load`, which turns it; of a PNG not before, since to ask is to load it.
    turned_by_loading = source.format == "TIFF" and _is_turned(source, data)
    source.load()
    _check_size(source.size, max_pixels)  # again: HEIF may turn out larger than its header says
    rotated = turned_by_loading or _is_turned(source, data)
    turn = _UPRIGHT.get(_orientation(source))
    image, scaled = to_eight_bits(source, rawmode)
    image, coloured = _coloured(image, source)
    image, flattened = _on_white(image, drawn)
    if turn is not None:
        image = image.transpose(turn)
    elif image is source:
        image = image._new(image.im)  # the same pixels without the file, where `copy` takes memory
    image.info.clear()  # else a comment or profile of the input would enter the outputs
    notes = (
        _frames(source),
        "rotated upright" if rotated else None,
        scaled,
        coloured,
        flattened,
    )
    return Decoded(image, source.format or "", tuple(note for note in notes if note))


def _coloured(image: Image.Image, source: Image.Image) -> tuple[Image.Image, str | None]:
    """RGB or RGBA in the colours of sRGB, and what had to be done for it."""
    icc = source.info.get("icc_profile")
    if icc is None and "icc_profile" in source.info:  # Pillow could not unpack it
        return to_srgb(image, None)[0], IGNORED
    if image.mode != "LA":
        return to_srgb(image, icc)
    alpha = image.getchannel("A")
    image, note = to_srgb(image.getchannel("L"), icc)
    image.putalpha(alpha)
    return image, note


def _drawn(source: Image.Image) -> tuple[int, int, int, int] | None:
    """Where a GIF has pixels, if its first frame is smaller than its screen; before `load`."""
    tiles = getattr(source, "tile", None)
    if source.format != "GIF" or not tiles or tiles[0][1] == (0, 0, *source.size):
        return None
    left, top, right, bottom = tiles[0][1]
    return left, top, right, bottom


def _frames(source: Image.Image) -> str | None:
    """The note that there are others than the first."""
    try:
        frames = _pages(source) if source.format == "TIFF" else getattr(source, "n_frames", 1)
    except Exception:  # noqa: BLE001 - damage in a later frame; the first is whole
        return None
    if frames > MAX_FRAMES and source.format == "TIFF":
        return f"first of more than {MAX_FRAMES} frames"
    return f"first of {frames} frames" if frames > 1 else None


def _pages(source: Image.Image) -> int:
    """Of a TIFF, at most MAX_FRAMES + 1: Pillow's own count takes a minute for some small files."""
    for page in range(1, MAX_FRAMES + 1):
        try:
            source.seek(page)
        except EOFError:
            return page
    return MAX_FRAMES + 1


def _is_turned(source: Image.Image, data: bytes) -> bool:
    if source.format == "HEIF":  # by its reader, which obeys these boxes and no EXIF
        said = source.info.get("original_orientation") in _UPRIGHT
        return said and (b"irot" in data or b"imir" in data)
    return _orientation(source) in _UPRIGHT


def _orientation(source: Image.Image) -> int:
    try:
        return int(source.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata does not break the image
        return 1


def _on_white(
    image: Image.Image, drawn: tuple[int, int, int, int] | None
) -> tuple[Image.Image, str | None]:
    """RGB from RGB or RGBA; around `drawn`, if given, there is nothing."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    if alpha is None and drawn is None:
        return _plain_rgb(image), None
    white = Image.new("RGB", image.size, "white")
    if drawn is None:
        white.paste(image, mask=alpha)
    else:
        white.paste(image.crop(drawn), drawn, alpha.crop(drawn) if alpha else None)
    return white, "transparency laid on white"


def _plain_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _unidentified(data: bytes) -> str:
    seen = _seen(data)
    accepted = ", ".join((*FORMATS, "HEIF") if _reads_heif() else FORMATS)
    if seen in ("HEIC", "HEIF") and not _reads_heif():
        return (
            f"the object is {seen}, which this worker reads only with the extra installed: "
            "pip install maskq[heic]"
        )
    if seen.upper() in FORMATS or seen in ("HEIC", "HEIF"):
        return (
            f"the {seen} image is damaged or cut short, or of a kind that is not supported: "
            "its header cannot be read"
        )
    if seen:
        return f"the object is {seen}, which is not accepted; accepted are {accepted}"
    return f"the object is no image of a known format; accepted are {accepted}"


def _damaged(data: bytes, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    seen = f"{_seen(data)} image".lstrip()
    if "unsupported" in reason.lower():
        return f"the {seen} is of a kind that cannot be read: {reason}"
    return f"the {seen} is damaged or cut short: {reason}"


def _bomb(error: Image.DecompressionBombError, max_pixels: int) -> str:
    pixels = re.search(r"\d+", str(error))  # of 'Image size (… pixels) exceeds limit of …'
    has = f"has {pixels[0]} pixels" if pixels else "decompresses to more than is accepted"
    return f"the image {has}; at most {max_pixels} are accepted"


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
