"""PIL images and numpy arrays as PNG, without loss."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    import PIL.Image

# Modes that PNG holds, and modes that become one of them without a change to visible pixels.
_AS_THEY_ARE: Final = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")
_CONVERTED: Final = {
    "PA": "RGBA", "La": "LA", "RGBa": "RGBA",
    "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB",
}  # fmt: skip
_LAYOUTS: Final = (
    "uint8 of shape (height, width), (height, width, 3) as RGB or (height, width, 4) as "
)


def png_of(image: object) -> bytes | None:
    """The image as PNG; None if it is neither a PIL image nor an array. Raises InvalidRequest."""
    if hasattr(image, "save") and hasattr(image, "convert"):
        return _png(image)
    if hasattr(image, "__array_interface__"):
        return _png(_picture(image))
    return None


def _png(image: Any) -> bytes:
    if 0 in image.size:
        raise InvalidRequest(f"the image has {image.width}x{image.height} pixels")
    buffer = io.BytesIO()
    if image.mode in _AS_THEY_ARE:
        image.save(buffer, "PNG", compress_level=1)
    elif image.mode in _CONVERTED:
        # Without the colour profile, which belongs to the former mode.
        converted = image.convert(_CONVERTED[image.mode])
        converted.save(buffer, "PNG", compress_level=1, icc_profile=None)
    else:
        raise InvalidRequest(
            f"a PIL image of mode {image.mode} has no fixed range of values; convert it to L, RGB or "
            f"I;16"
        )
    return buffer.getvalue()


def _picture(array: Any) -> PIL.Image.Image:
    """An array as a PIL image. Raises InvalidRequest for layouts whose meaning is not certain."""
    from PIL import Image

    shape, kind = tuple(array.shape), str(array.dtype)
    if len(shape) == 3 and shape[2] == 1:
        array, shape = array[:, :, 0], shape[:2]
    is_gray = len(shape) == 2 and kind in ("uint8", "uint16", "bool")
    is_colour = len(shape) == 3 and shape[2] in (3, 4) and kind == "uint8"
    if not (is_gray or is_colour):
        raise InvalidRequest(
            f"an array of {kind} and shape {shape} is not accepted; give {_LAYOUTS}RGBA, or uint16 or "
            f"bool of shape (height, width)"
        )
    if 0 in shape:
        raise InvalidRequest(f"the array is empty: its shape is {shape}")
    return Image.fromarray(array)
