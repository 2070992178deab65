"""What rle.json costs beside pycocotools: milliseconds for a mask of regions and one of noise.

`python -m bench.rle`. Both sides encode a mask as JSON: counts, area and box of each class present; our
side has ids and categories as well. Each figure is the median of many runs, by turns. The masks are a
drawn scene's, resized, and white noise of 16 classes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from demo_scenes.scenes import draw
from PIL import Image
from pycocotools import mask as coco_mask

from maskq_worker.outputs import Source, shares
from maskq_worker.outputs.coco import rle_json

SIZES = ((32, 32), (64, 64), (128, 96), (320, 240), (640, 480), (2000, 1500), (4000, 3000))
LABELS = tuple(f"label {index}" for index in range(150))
SECONDS = 1.0  # of each side, for each mask


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own
    print(f"{'mask':<12} {'px':>11} {'classes':>8} {'ours, ms':>9} {'pycocotools, ms':>16}")
    for width, height in SIZES:
        for name, mask in (("scene", scene(width, height)), ("noise", noise(width, height))):
            mine, theirs = by_turns(lambda m=mask: ours(m), lambda m=mask: pycocotools(m))
            classes = len(np.unique(mask))
            print(f"{name:<12} {width:>5}x{height:<5} {classes:>8} {mine:>9.3f} {theirs:>16.3f}")


def scene(width: int, height: int) -> np.ndarray:
    mask = draw(3, size=(640, 480)).mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 16, (height, width), dtype=np.uint8)


def ours(mask: np.ndarray) -> bytes:
    return rle_json(mask, shares(mask, LABELS), LABELS, Source())


def pycocotools(mask: np.ndarray) -> bytes:
    annotations: list[dict[str, Any]] = []
    for class_id in np.unique(mask).tolist():
        rle = coco_mask.encode(np.asfortranarray(mask == class_id).view(np.uint8))
        annotations.append(
            {
                "category_id": class_id + 1,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "area": int(coco_mask.area(rle)),
                "bbox": coco_mask.toBbox(rle).tolist(),
            }
        )
    return json.dumps({"annotations": annotations}).encode()


def by_turns(*sides: Callable[[], bytes]) -> list[float]:
    """Median milliseconds of each."""
    took: list[list[float]] = [[] for _ in sides]
    ends = time.perf_counter() + SECONDS * len(sides)
    while time.perf_counter() < ends or len(took[0]) < 5:
        for side, times in zip(sides, took, strict=True):
            began = time.perf_counter()
            side()
            times.append((time.perf_counter() - began) * 1000)
    return [statistics.median(times) for times in took]


if __name__ == "__main__":
    main()
