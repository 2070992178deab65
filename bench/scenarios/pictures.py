"""The images that are asked for: drawn scenes, grained as photographs are, as JPEG in the store."""

from __future__ import annotations

import io
import math

import numpy as np
from demo_scenes.scenes import draw
from PIL import Image

from bench.scenarios.service import Service
from maskq.contract.locations import S3Uri

PLAIN = (640, 480)  # px, of the images of scenarios that do not say otherwise
_GRAIN = 4.0  # levels: about the bytes a pixel that a camera's JPEG takes


def scene(number: int, size: tuple[int, int] = PLAIN) -> bytes:
    """A JPEG of (width, height) px."""
    image = draw(number).image.resize(size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).normal(0.0, _GRAIN, (size[1], size[0])).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32) + grain[..., None]
    body = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(body, "JPEG", quality=90)
    return body.getvalue()


def sized(megapixels: float) -> tuple[int, int]:
    """(width, height) px of a 4:3 image."""
    height = math.sqrt(megapixels * 1e6 * 3 / 4)
    return round(height * 4 / 3), round(height)


def store(service: Service, name: str, body: bytes) -> str:
    """Put it where workers read it; the URI."""
    place = S3Uri(service.client.settings.s3_bucket, f"bench/{name}.jpg")
    service.client.objects.put(place, body, "image/jpeg")
    return str(place)


def stored(
    service: Service, count: int, *, size: tuple[int, int] = PLAIN, kinds: int = 8
) -> list[str]:
    """`count` URIs, of `kinds` different scenes by turns."""
    kinds = min(kinds, count)
    uris = [store(service, f"{size[0]}x{size[1]}-{n}", scene(n, size)) for n in range(kinds)]
    return [uris[n % kinds] for n in range(count)]
