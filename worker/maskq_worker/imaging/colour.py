"""Converts pixels from their embedded colour profile to sRGB, which the model expects."""

from __future__ import annotations

import io
from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

IGNORED: Final = "colour profile ignored"
NAME_LENGTH: Final = 60  # characters of a profile's name in a note

# Pillow's modes that fit a profile's colour space.
_MODES: Final = {"GRAY": ("L",), "RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",)}
# Up to this difference, in 8-bit levels, a profile counts as sRGB.
_SAME: Final = 2


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, str | None]:
    """Convert L, CMYK, LAB or RGB to RGB, and RGBA to RGBA. Returns also a note of the conversion.

    RGB and RGBA are converted in place; other modes need one more image. A profile that is damaged or
    made for other pixels is ignored, with a note; this never raises.

    The intent is relative colorimetric with black point compensation. Profiles of cameras, phones and
    screens support no other. With profiles of presses it keeps every colour in sRGB, whereas each
    vendor defines "perceptual" differently.
    """
    if image.mode == "LAB":
        return _applied(image, _from_lab()), "converted from Lab to sRGB"
    if not icc:
        return _plain(image), None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if image.mode not in _MODES.get(space, ()):
            # Gray under a profile of three colours is common, and right if that one is sRGB.
            harmless = (image.mode, space) == ("L", "RGB") and _is_srgb(profile, "RGB")
            return _plain(image), None if harmless else IGNORED
        if _is_srgb(profile, image.mode):
            return _plain(image), None
        name = _name(profile)
        return _converted(image, profile), f"converted from {name} to sRGB"
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return _plain(image), IGNORED


@cache
def _from_lab() -> ImageCms.ImageCmsTransform:
    """Cached, since building it takes 50 ms."""
    return _transform(ImageCms.createProfile("LAB"), "LAB", "RGB")


def _plain(image: Image.Image) -> Image.Image:
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    output = "RGBA" if image.mode == "RGBA" else "RGB"
    return _applied(image, _transform(profile, image.mode, output))


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    in_place = transform.input_mode == transform.output_mode
    converted = ImageCms.applyTransform(image, transform, inPlace=in_place)
    return image if converted is None else converted


def _transform(
    profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile, mode: str, output: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        output,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _is_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether a profile changes no colours. Names are unreliable: there are many sRGB profiles."""
    if mode == "CMYK":
        return False
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    else:
        levels = np.array(np.meshgrid(*[np.arange(0, 256, 51)] * 3), dtype=np.uint8)
        probe = Image.fromarray(levels.reshape(3, 1, -1).transpose(1, 2, 0).copy())
    before = np.asarray(probe.convert("RGB")).astype(int)
    return bool(np.abs(np.asarray(_converted(probe, profile)) - before).max() <= _SAME)


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    """The profile's name, as one line."""
    try:
        said = ImageCms.getProfileDescription(profile)
    except ImageCms.PyCMSError:
        said = ""
    printable = "".join(c if c.isprintable() else " " for c in said)
    return " ".join(printable.split())[:NAME_LENGTH].strip() or "an unnamed profile"
