"""The naive task with its network on a card: `celery -A bench.gpu.naive_task worker`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from bench.peers import segment
from bench.peers.plain import Mask, Model

DEVICE = os.environ["NAIVE_DEVICE"]  # cuda | cpu


class Placed(Model):
    """`Model`, with the two lines that everybody adds."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.network = self.network.to(DEVICE)

    @torch.inference_mode()
    def masks(self, images: Sequence[Image.Image]) -> list[Mask]:
        outputs = self.network(pixel_values=self.pixels(images).to(DEVICE))
        sizes = [(image.height, image.width) for image in images]
        masks = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [mask.cpu().numpy().astype(np.uint8) for mask in masks]


segment.Model = Placed  # type: ignore[misc]  # what each of its processes loads

from bench.peers.celery_task import app  # noqa: E402 - after the line above

__all__ = ["app"]
