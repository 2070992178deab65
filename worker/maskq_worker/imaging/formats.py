"""Which formats are accepted, how a file is told from its first bytes, and how one is refused."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from PIL import features

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError

# An allow-list is the main defence: rare decoders are where security fixes go. JPEG includes MPO, the
# JPEGs with a second picture in them that many phones write. HEIF joins where its reader is installed
# (`pip install maskq[heic]`), and only for a file that says it is HEIF.
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
_RAW: Final = "camera raw ({})"
_SIGNATURES: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (8, b"CR\x02\0", _RAW.format("Canon CR2")),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"IIRO", _RAW.format("Olympus ORF")),
    (0, b"IIRS", _RAW.format("Olympus ORF")),
    (0, b"MMOR", _RAW.format("Olympus ORF")),
    (0, b"IIU\0", _RAW.format("Panasonic RW2")),
    (0, b"FUJIFILMCCD-RAW", _RAW.format("Fujifilm RAF")),
    (0, b"FOVb", _RAW.format("Sigma X3F")),
    (0, b"\0MRM", _RAW.format("Minolta MRW")),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypcrx", _RAW.format("Canon CR3")),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif", "HEIF"),
    (4, b"ftypmsf", "HEIF"),
    (4, b"ftyp", "MP4 or QuickTime video"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
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


def format_of(data: bytes) -> str:
    """The format that the first bytes name; empty if unknown."""
    start = data[:256].lstrip()
    for offset, signature, name in _SIGNATURES:
        if start[offset:].startswith(signature):
            return name
    return ""


@cache
def reads_heif() -> bool:
    """Whether the extra is installed; if so, Pillow knows of it from now on."""
    try:
        import pillow_heif  # here, since it is an extra, and most processes never see a HEIC
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def pillow_formats(data: bytes) -> tuple[str, ...]:
    """What Pillow may take `data` for."""
    known = tuple(name for name in FORMATS if name != "TIFF")  # tiff.py reads those
    return (*known, "HEIF") if format_of(data) in ("HEIC", "HEIF") and reads_heif() else known


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises PermanentError for no pixels, and for more than are accepted."""
    width, height = size
    if width < 1 or height < 1:
        raise invalid(f"the image is {width}x{height} px")
    if width * height > max_pixels:
        raise too_large(
            f"the image is {width}x{height} px, {width * height} pixels; at most {max_pixels} are "
            "accepted"
        )
    if max(size) > MAX_SIDE:
        raise too_large(
            f"the image is {width}x{height} px; at most {MAX_SIDE} px on a side are accepted"
        )


def frames_note(frames: int) -> str | None:
    """The note that there are others than the first."""
    return f"first of {frames} frames" if frames > 1 else None


def unidentified(data: bytes) -> str:
    seen = format_of(data)
    accepted = ", ".join((*FORMATS, "HEIF") if reads_heif() else FORMATS)
    if seen in ("HEIC", "HEIF") and not reads_heif():
        return (
            f"the object is {seen}, which this worker reads only with the extra installed: "
            "pip install maskq[heic]"
        )
    if seen.upper() in FORMATS or seen in ("HEIC", "HEIF"):
        return (
            f"the {seen} image is damaged or cut short, or of a kind that is not supported: "
            "its header cannot be read"
        )
    if seen.startswith("camera raw"):
        return f"the object is a {seen} file, which is not accepted; export it as JPEG or TIFF"
    if seen:
        return f"the object is {seen}, which is not accepted; accepted are {accepted}"
    return f"the object is no image of a known format; accepted are {accepted}"


def damaged(data: bytes, error: Exception) -> str:
    reason = "".join(c if c.isprintable() else " " for c in str(error))
    reason = " ".join(reason.split())[:200] or type(error).__name__
    seen = f"{format_of(data)} image".lstrip()
    if "unsupported" in reason.lower() or "not supported" in reason.lower():
        return f"the {seen} is of a kind that cannot be read: {reason}"
    return f"the {seen} is damaged or cut short: {reason}"


def bomb(error: Exception, max_pixels: int) -> str:
    pixels = re.search(r"\d+", str(error))  # of 'Image size (… pixels) exceeds limit of …'
    has = f"has {pixels[0]} pixels" if pixels else "decompresses to more than is accepted"
    return f"the image {has}; at most {max_pixels} are accepted"


def invalid(message: str) -> PermanentError:
    return PermanentError(FailureCode.INVALID_IMAGE, message)


def too_large(message: str) -> PermanentError:
    return PermanentError(FailureCode.IMAGE_TOO_LARGE, message)
