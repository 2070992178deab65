"""Deterministic masks: vertical bands of classes, chosen by the digest of the image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from maskq.contract import FailureCode, JobFailure

if TYPE_CHECKING:
    import PIL.Image

DEFAULT_SIZE: Final = (64, 48)
"""Width and height of an image that the fake does not know, such as an s3:// place."""
ORIENTATION: Final = 0x0112  # Exif
_MOST_BANDS: Final = 4


@dataclass(frozen=True, slots=True)
class Photo:
    """An image as workers see it: RGB and upright."""

    pixels: PIL.Image.Image
    sha256: str  # of the bytes that were read, in hex
    notes: tuple[str, ...] = ()


@cache
def default_image() -> bytes:
    """The image at a place that the fake does not know: gray, of DEFAULT_SIZE."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", DEFAULT_SIZE, "gray").save(buffer, "PNG")
    return buffer.getvalue()


def photo_of(body: bytes) -> Photo | JobFailure:
    """The image in these bytes, or why there is none."""
    from PIL import Image, ImageOps

    try:
        image = Image.open(io.BytesIO(body))
        is_turned = image.getexif().get(ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # noqa: BLE001 - decoders raise any exception on malformed bytes
        text = "not a supported image format (JPEG, PNG, …)" if body else "the image is empty"
        return JobFailure(code=FailureCode.INVALID_IMAGE, message=text)
    notes = ("rotated upright",) if is_turned else ()
    return Photo(upright, hashlib.sha256(body).hexdigest(), notes)


def mask_of(identity: bytes, size: tuple[int, int], classes: int) -> PIL.Image.Image:
    """A mask (mode L) of bands, whose classes and widths depend on `identity` and the size alone."""
    from PIL import Image

    digest = hashlib.sha256(identity).digest()
    width, height = size
    bands = min(2 + digest[0] % (_MOST_BANDS - 1), classes, width)
    mask = Image.new("L", size)
    for number in range(bands):
        # The classes are neighbours in the list of labels, so they differ.
        left = width * number // bands
        if number:
            left += digest[number] * (width // bands) // 512  # moves by less than half a band
        mask.paste((digest[-1] + number) % classes, (left, 0, width, height))
    return mask


@cache
def palette() -> bytes:
    """Red, green and blue of each of 256 class ids: the colours of the PASCAL VOC data set."""
    colours = []
    for class_id in range(256):
        rgb, rest = [0, 0, 0], (class_id + 1) % 256
        for bit in range(7, -1, -1):
            rgb = [value | (rest >> channel & 1) << bit for channel, value in enumerate(rgb)]
            rest >>= 3
        colours += rgb
    return bytes(colours)


def colours(classes: int) -> tuple[str, ...]:
    """`#rrggbb` of each class."""
    return tuple(f"#{palette()[at : at + 3].hex()}" for at in range(0, 3 * classes, 3))


def checked_mask(
    mask: PIL.Image.Image, size: tuple[int, int], labels: Sequence[str]
) -> PIL.Image.Image:
    """A mask that a test gives, in mode L. Raises ValueError if it does not fit the image."""
    from PIL import Image

    if mask.size != size or mask.mode not in ("L", "P"):
        raise ValueError(
            f"the mask for the next jobs is {mask.width}x{mask.height} px of mode {mask.mode}; this "
            f"image needs {size[0]}x{size[1]} px of mode L or P"
        )
    ids = Image.frombytes("L", size, mask.tobytes())
    if max(ids.tobytes()) >= len(labels):
        raise ValueError(f"the mask for the next jobs holds ids beyond the {len(labels)} labels")
    return ids
