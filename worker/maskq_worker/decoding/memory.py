"""How much memory decoding an image takes, and its reservation in MASKQ_MAX_DECODED_BYTES."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from maskq.contract import FailureCode
from maskq_worker.decoding import headers
from maskq_worker.errors import PermanentError

if TYPE_CHECKING:
    from PIL import Image

    from maskq_worker.decoding.limits import DecodeLimits

# Bytes a pixel at the peak, of the mode that takes most: `python -m bench.decode_memory`. At least 12:
# after decoding the pixels are in shared memory, and each side has a copy. A format that is not listed
# is counted as MOST_PIXEL_BYTES. imaging/formats.py has the list of formats.
PIXEL_BYTES: Final = {
    "JPEG": 14,
    "PNG": 14,
    "GIF": 12,
    "BMP": 24,
    "WEBP": 22,
    "TIFF": 12,
    "AVIF": 18,
    "HEIF": 20,
}
MOST_PIXEL_BYTES: Final = (
    40  # of a PNG with 16 bits a sample; for a TIFF the decoder states it exactly
)
KEPT_PIXEL_BYTES: Final = 8  # of a decoded image, with its mask and overlay
_FILE_COPIES: Final = 2  # one in shared memory, one in the decoding process


def needed_bytes(pixels: int, decoding_bytes: int) -> int:
    """The memory by the decoder's own count, with a copy of the result."""
    return decoding_bytes + pixels * KEPT_PIXEL_BYTES if decoding_bytes else 0


def most_bytes(limits: DecodeLimits) -> int:
    """The memory of the largest accepted image."""
    return limits.max_pixels * MOST_PIXEL_BYTES + limits.max_bytes * _FILE_COPIES


class ImageMemory:
    """The memory that one image may take while it is decoded.

    take: waits until so many bytes are free and reserves them, instead of those reserved before.
    """

    def __init__(self, data: bytes, limits: DecodeLimits, take: Callable[[int], object]) -> None:
        self._take = take
        self._pixel_bytes = PIXEL_BYTES.get(headers.format_of(data), MOST_PIXEL_BYTES)
        self._file_bytes = len(data) * _FILE_COPIES
        self.pixels = 0  # granted so far
        self.granted = self._file_bytes  # bytes
        self._admit_by_header(data, limits)

    def allow(self, pixels: int, decoding_bytes: int = 0) -> None:
        """Wait for the memory to decode so many pixels, unless it is granted already.

        decoding_bytes: as the decoder states; 0: as usual for the format.
        """
        usual = pixels * self._pixel_bytes
        needed = max(usual, needed_bytes(pixels, decoding_bytes)) + self._file_bytes
        self.pixels = max(self.pixels, pixels)
        if needed > self.granted:
            self.granted = needed
            self._take(needed)

    def check(self, image: Image.Image) -> None:
        """Raises PermanentError for an image of more pixels than its header states."""
        if image.width * image.height > self.pixels:
            raise PermanentError(
                FailureCode.INVALID_IMAGE,
                f"the image is {image.width}x{image.height} px, which is more than its header says",
            )

    def _admit_by_header(self, data: bytes, limits: DecodeLimits) -> None:
        """Check the header before a decoder reads the file. Raises PermanentError."""
        scans = headers.scans_of(data, limits.max_scans)
        if scans > limits.max_scans:
            raise PermanentError(
                FailureCode.INVALID_IMAGE,
                f"the JPEG image is built up in {scans} scans; at most {limits.max_scans} are read "
                "(MASKQ_MAX_IMAGE_SCANS)",
            )
        size = headers.size_of(data)
        if size is None:
            return
        width, height = size
        if width * height > limits.max_pixels:
            raise PermanentError(
                FailureCode.IMAGE_TOO_LARGE,
                f"the image is {width}x{height} px, {width * height} pixels; at most "
                f"{limits.max_pixels} are accepted",
            )
        self.allow(width * height)
