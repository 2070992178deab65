"""The images, and what transformers itself makes of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from demo_scenes.scenes import draw
from PIL import Image

from bench.peers.plain import Mask, Model, decoded

DRAWN = (640, 480)  # px; other sizes are resized from it
DIFFERENT = 8  # images; further ones repeat them


def jpegs(count: int, megapixels: float) -> list[bytes]:
    """Drawn scenes, 4:3."""
    unit = round(sqrt(megapixels * 1e6 / 12))
    return [_jpeg(seed, (4 * unit, 3 * unit)) for seed in range(min(count, DIFFERENT))]


def references(model: Model, bodies: Sequence[bytes]) -> list[Mask]:
    return [model.masks([decoded(body)])[0] for body in bodies]


def upload(client: Any, bucket: str, prefix: str, bodies: Sequence[bytes], count: int) -> list[str]:
    """`count` images under keys of their own; returns the keys."""
    keys = [f"{prefix}/{number}.jpg" for number in range(count)]
    for number, key in enumerate(keys):
        body = bodies[number % len(bodies)]
        client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/jpeg")
    return keys


def equal_share(
    client: Any, bucket: str, mask_keys: Sequence[str], references: Sequence[Mask]
) -> float:
    """Of all pixels of all masks, how many are the references'."""
    equal = total = 0
    for number, key in enumerate(mask_keys):
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        mask = np.asarray(Image.open(io.BytesIO(body)))
        expected = references[number % len(references)]
        total += expected.size
        equal += int((mask == expected).sum()) if mask.shape == expected.shape else 0
    return equal / total


def _jpeg(seed: int, size: tuple[int, int]) -> bytes:
    body = io.BytesIO()
    picture = draw(seed, size=DRAWN).image.resize(size, Image.Resampling.BICUBIC)
    picture.save(body, "JPEG", quality=90)
    return body.getvalue()
