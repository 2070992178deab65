"""The masks that others are compared with: transformers' own, and the same without transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from maskq_worker.model.masks.scores import mask_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLASSES: Final = 32  # at a time in `plain_mask`


def transformers_mask(processor: Any, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """The mask that transformers' image processor makes of one image's scores.

    A processor that makes no masks (ViT's beside a UPerNet) gets `plain_mask`, as all others make.

    Args:
        processor: transformers' image processor.
        scores: (C, h, w) float32.
        size: (H, W) px of the mask.

    Returns:
        (H, W) class ids, uint8 up to 256 classes, else uint16.
    """
    if not hasattr(processor, "post_process_semantic_segmentation"):
        return plain_mask(scores, size)
    from transformers.modeling_outputs import SemanticSegmenterOutput

    with torch.inference_mode():
        # One image at a time: for a batch, transformers keeps the scores of all until the end.
        outputs = SemanticSegmenterOutput(logits=scores[None])
        mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
    ids: NDArray[Any] = mask.cpu().numpy()
    return ids.astype(mask_dtype(len(scores)))


def plain_mask(scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """The mask that most of transformers' processors make: bilinear interpolation, then argmax.

    It takes some classes at a time: half the time of all at once, and a fifth of the memory with 150.

    Args:
        scores: (C, h, w) float32.
        size: (H, W) px of the mask.

    Returns:
        (H, W) class ids, uint8 up to 256 classes, else uint16.
    """
    with torch.inference_mode():
        best = torch.full(size, -torch.inf, device=scores.device)
        ids = torch.zeros(size, dtype=torch.int64, device=scores.device)
        for first in range(0, len(scores), _CLASSES):
            some = scores[None, first : first + _CLASSES].contiguous()
            large = functional.interpolate(some, size=size, mode="bilinear", align_corners=False)
            highest, index = large[0].max(dim=0)
            ids = torch.where(highest > best, index + first, ids)  # of equals the first class
            best = torch.maximum(best, highest)
    answer: NDArray[Any] = ids.cpu().numpy()
    return answer.astype(mask_dtype(len(scores)))
