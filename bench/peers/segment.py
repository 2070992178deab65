"""From keys of images to keys of masks: what each peer's process calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.peers.plain import Model, Objects
from bench.peers.setup import Setup


class Segment:
    """Made in the process that computes, after any fork."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self._model = Model(setup.model)
        self._objects = Objects(setup.bucket, setup.batch)

    def __call__(self, keys: Sequence[str]) -> list[str]:
        """Images by their keys, in one forward; returns the keys of the masks."""
        images = self._objects.images(keys)
        return self._objects.put(keys, self._model.masks(images))
