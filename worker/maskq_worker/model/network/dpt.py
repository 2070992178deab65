"""The whole network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskq_worker.model.network.hybrid import Backbone
from maskq_worker.model.network.neck import Neck
from maskq_worker.model.network.rewrites import fold_batch_norm, upsample
from maskq_worker.model.network.supported import check
from maskq_worker.model.network.upsampled import convolve_upsampled
from maskq_worker.model.network.vit import Embedding, Transformer


class Head(nn.Module):
    """Scores of every class. The classifier may have another dtype than the rest, as float32."""

    def __init__(self, source: Any) -> None:
        """source: transformers' segmentation head: convolution, norm, ReLU, dropout, classifier."""
        super().__init__()
        self.convolution = fold_batch_norm(source.head[0], source.head[1])
        self.classifier = source.head[4]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, F, h, w), to be upsampled. Returns (B, classes, 4h, 4w)."""
        deep = convolve_upsampled(self.convolution, values).relu_()
        return upsample(self.classifier(deep.to(self.classifier.weight.dtype)))


class Network(nn.Module):
    """DPTForSemanticSegmentation's scores, for inputs of any shape."""

    def __init__(self, source: Any) -> None:
        """
        Args:
            source: transformers' network in evaluation mode. Its layers become this module's own, so it
                may not be used any more.

        Raises:
            UnsupportedError: `source` is left as it was.
        """
        super().__init__()
        config = source.config
        check(config)
        embeddings = source.dpt.embeddings
        self.backbone = None
        if config.is_hybrid:
            self.backbone = Backbone(embeddings.backbone, config.backbone_config)
            projection = embeddings.projection
        else:
            projection = embeddings.patch_embeddings.projection
        self.embedding = Embedding(embeddings, projection)
        self.transformer = Transformer(source.dpt.encoder, config)
        self.neck = Neck(source.neck, config)
        self.head = Head(source.head)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not annotated

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (B, 3, H, W), normalised; H and W multiples of the patch size, equal or not.

        Returns (B, classes, h, w), as large as transformers' (mostly H x W), unbounded scores,
        `channels_last`.
        """
        values = pixels.contiguous(memory_format=torch.channels_last)
        maps = [] if self.backbone is None else self.backbone(values)
        tokens, grid = self.embedding(maps[-1] if maps else values)
        scores: torch.Tensor = self.head(self.neck(maps[:2], self.transformer(tokens), grid))
        return scores
