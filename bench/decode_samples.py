"""Images to decode: one picture in every format and mode that is accepted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Maker = Callable[[], bytes]


def photo(width: int, height: int) -> Image.Image:
    """RGB: gradients with some noise, so that a JPEG has about the size of a photograph's."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(5).integers(0, 24, (height, width, 1))
    base = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2)
    return Image.fromarray((base * 0.9 + noise).clip(0, 255).astype(np.uint8))


def samples(width: int, height: int) -> Iterator[tuple[str, Maker]]:
    """A name such as 'PNG RGBA' and what makes the file, of `width` x `height` px."""

    def saved(make: Callable[[], Image.Image], kind: str, **options: Any) -> Maker:
        def save() -> bytes:
            buffer = io.BytesIO()
            make().save(buffer, kind, **options)
            return buffer.getvalue()

        return save

    def plain(mode: str) -> Callable[[], Image.Image]:
        return lambda: flat(width, height).convert(mode)

    def deep() -> Image.Image:
        return Image.fromarray(
            np.linspace(0, 65535, width, dtype=np.uint16)[None].repeat(height, 0)
        )

    def number() -> Image.Image:
        return Image.fromarray(np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, 0))

    def seen_through() -> Image.Image:
        image = flat(width, height)
        image.putalpha(128)
        return image

    def seen_through_gray() -> Image.Image:
        return seen_through().convert("LA")

    turned = Image.Exif()
    turned[0x0112] = 6
    jpeg = {"quality": 90, "subsampling": 0}
    yield "JPEG RGB", saved(plain("RGB"), "JPEG", **jpeg)
    yield "JPEG L", saved(plain("L"), "JPEG", quality=90)
    yield "JPEG CMYK", saved(plain("CMYK"), "JPEG", **jpeg)
    yield "JPEG RGB progressive", saved(plain("RGB"), "JPEG", progressive=True, **jpeg)
    yield "JPEG CMYK progressive", saved(plain("CMYK"), "JPEG", progressive=True, **jpeg)
    yield "JPEG RGB turned", saved(plain("RGB"), "JPEG", exif=turned, **jpeg)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        yield f"PNG {mode}", saved(plain(mode), "PNG", compress_level=1)
    yield "PNG RGBA see-through", saved(seen_through, "PNG", compress_level=1)
    yield "PNG 16 bits", saved(deep, "PNG", compress_level=1)
    yield "PNG RGBA see-through turned", saved(seen_through, "PNG", compress_level=1, exif=turned)
    yield (
        "PNG LA see-through turned",
        saved(seen_through_gray, "PNG", compress_level=1, exif=turned),
    )
    yield "PNG 16 bits turned", saved(deep, "PNG", compress_level=1, exif=turned)
    yield "PNG 16 bits, one transparent", saved(deep, "PNG", compress_level=1, transparency=7)
    yield "PNG P, one transparent", saved(plain("P"), "PNG", compress_level=1, transparency=7)
    yield "WebP lossy", saved(plain("RGB"), "WEBP", method=0)
    yield "WebP lossless", saved(plain("RGB"), "WEBP", lossless=True, method=0)
    yield "WebP see-through", saved(seen_through, "WEBP", method=0)
    yield "WebP see-through turned", saved(seen_through, "WEBP", method=0, exif=turned)
    yield "GIF P", saved(plain("P"), "GIF")
    yield "GIF with a transparent colour", saved(plain("P"), "GIF", transparency=3)
    for mode in ("RGB", "RGBA", "L", "P", "CMYK", "LAB"):
        source = "RGB" if mode == "LAB" else mode
        make = plain(source) if mode != "LAB" else lambda: lab(flat(width, height))
        yield f"TIFF {mode}", saved(make, "TIFF")
    yield "TIFF RGB deflate", saved(plain("RGB"), "TIFF", compression="tiff_adobe_deflate")
    yield "TIFF 16 bits", saved(deep, "TIFF")
    yield "TIFF float", saved(number, "TIFF")
    yield "TIFF float turned", saved(number, "TIFF", tiffinfo={0x0112: 6})
    yield "TIFF RGBA see-through turned", saved(seen_through, "TIFF", tiffinfo={0x0112: 6})
    for mode in ("RGB", "L", "P"):
        yield f"BMP {mode}", saved(plain(mode), "BMP")
    yield "AVIF RGB", saved(plain("RGB"), "AVIF", speed=10, quality=50)
    yield "AVIF see-through", saved(seen_through, "AVIF", speed=10, quality=50)
    yield "AVIF see-through turned", saved(seen_through, "AVIF", speed=10, quality=50, exif=turned)
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
    yield "HEIF RGB", saved(plain("RGB"), "HEIF", quality=50)
    yield "HEIF see-through", saved(seen_through, "HEIF", quality=50)


def flat(width: int, height: int) -> Image.Image:
    """RGB without noise: its file is small, so that what is measured is the pixels."""
    gradient = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient))


def lab(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted
