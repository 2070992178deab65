"""The size limits of images, and the errors and notes that all readers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError

MAX_SIDE: Final = 65_500  # px: the limit of JPEG, and so of an overlay
MAX_FRAMES: Final = (
    1000  # counted of a TIFF, where counting takes time; a note says if there are more
)

# Called with the number of pixels, and the bytes that decoding them takes (0: as usual for the format).
OnPixels = Callable[[int, int], object]


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises PermanentError for an image without pixels, and for one that is too large."""
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
    """The note that only the first of several frames is read."""
    return f"first of {frames} frames" if frames > 1 else None


def invalid(message: str) -> PermanentError:
    """The error for an image that is damaged or not supported."""
    return PermanentError(FailureCode.INVALID_IMAGE, message)


def too_large(message: str) -> PermanentError:
    """The error for an image that exceeds a limit."""
    return PermanentError(FailureCode.IMAGE_TOO_LARGE, message)
