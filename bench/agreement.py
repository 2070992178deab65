"""Are our masks transformers' own? `python -m bench.agreement [--model large|demo|DIR] [--images 20]`.

Images of many shapes go through a real stack (`maskq up --model DIR`: Valkey, S3 server, one worker
process), and through transformers itself in this process: processor, model, and
post_process_semantic_segmentation with the images' own sizes. Printed: pixels that differ, and how many
of those are no ties (the two classes further apart than 1e-5 of the largest score, in float64).
`large` is a DPT-Large of random weights in the hub's layout.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_scenes.scenes import draw
from PIL import Image

from bench.checkpoints import write_large
from maskq import Client
from maskq_standalone.stack import Stack
from maskq_worker.model.checkpoint.folder import resolve
from maskq_worker.model.masks.comparison import untied_differences

SHAPES = (
    (640, 480), (480, 640), (500, 500), (1280, 720), (720, 1280), (333, 251), (1000, 300), (97, 801),
    (64, 64), (480, 480), (481, 479), (1920, 1080), (31, 47), (800, 200), (1600, 1200), (1, 1),
    (2, 300), (599, 601), (1024, 1024), (2400, 1350),
)  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="large")
    options.add_argument("--images", type=int, default=len(SHAPES))
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model
        if model == "large":
            model = str(write_large(Path(folder) / "dpt-large"))
        images = [picture(n, SHAPES[n % len(SHAPES)]) for n in range(chosen.images)]
        ours = through_the_queue(model, images)
        compare(resolve(model, None).directory, images, ours)


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    return draw(number, size=(640, 480)).image.resize(size, Image.Resampling.BICUBIC)


def through_the_queue(model: str, images: list[Image.Image]) -> list[np.ndarray]:
    with Stack(workers=1, model=model, log_level="WARNING") as stack:
        os.environ.update(stack.environment)
        began = time.perf_counter()
        with Client.from_env() as client:
            jobs = [client.submit(image) for image in images]
            masks = [np.asarray(job.wait(600).mask()) for job in jobs]
        print(f"{len(masks)} images through the queue in {time.perf_counter() - began:.0f} s")
    return masks


def compare(directory: Path, images: list[Image.Image], ours: list[np.ndarray]) -> None:
    from transformers import DPTForSemanticSegmentation
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    loader: Any = DPTForSemanticSegmentation
    network = loader.from_pretrained(directory, dtype=torch.float32).eval()
    processor = DPTImageProcessorPil.from_pretrained(directory)
    pixels = differing = untied = 0
    classes: set[int] = set()
    for image, mask in zip(images, ours, strict=True):
        size = (image.height, image.width)
        with torch.inference_mode():
            outputs = network(**processor(images=image, return_tensors="pt"))
            expected = processor.post_process_semantic_segmentation(outputs, [size])[0].numpy()
        pixels += mask.size
        differing += int((mask != expected).sum())
        untied += untied_differences(outputs.logits[0], mask, expected)
        classes |= set(np.unique(expected).tolist())
    print(
        f"{len(ours)} masks, {len(classes)} classes, {pixels} pixels: {differing} differ from "
        f"transformers' own, {untied} of them untied"
    )


if __name__ == "__main__":
    main()
