"""Segmentation as anyone writes it: transformers, boto3, Pillow. The work of every peer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

Mask = NDArray[np.uint8]  # (H, W), class ids


class Model:
    """Processor, network and post-processing of a checkpoint in the hub's layout, float32."""

    def __init__(self, directory: str) -> None:
        self.processor: Any = AutoImageProcessor.from_pretrained(directory)
        network: Any = AutoModelForSemanticSegmentation
        self.network = network.from_pretrained(directory, dtype=torch.float32).eval()

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """(N, 3, h, w) float32, as the network takes it."""
        pixels: torch.Tensor = self.processor(images=list(images), return_tensors="pt").pixel_values
        return pixels

    @torch.inference_mode()
    def masks(self, images: Sequence[Image.Image]) -> list[Mask]:
        """One of each image's own size, in one forward."""
        outputs = self.network(pixel_values=self.pixels(images))
        sizes = [(image.height, image.width) for image in images]
        masks = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [mask.numpy().astype(np.uint8) for mask in masks]


class Objects:
    """Images from the store, masks to it; `key` of an image, `key.png` of its mask."""

    def __init__(self, bucket: str, at_once: int) -> None:
        self._bucket = bucket
        self._client: Any = boto3.client("s3")
        self._threads = ThreadPoolExecutor(at_once)

    def images(self, keys: Sequence[str]) -> list[Image.Image]:
        return [*self._threads.map(self._image, keys)]

    def put(self, keys: Sequence[str], masks: Sequence[Mask]) -> list[str]:
        """The masks' keys."""
        return [*self._threads.map(self._put, keys, masks)]

    def _image(self, key: str) -> Image.Image:
        body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return decoded(body)

    def _put(self, key: str, mask: Mask) -> str:
        body = io.BytesIO()
        Image.fromarray(mask).save(body, "PNG", compress_level=1)
        name = f"{key}.png"
        self._client.put_object(
            Bucket=self._bucket, Key=name, Body=body.getvalue(), ContentType="image/png"
        )
        return name


def decoded(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body)).convert("RGB")
