"""Checkpoints in the hub's layout, random weights: to measure and test all but the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import DPTConfig, DPTForSemanticSegmentation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil


def write_smallest(directory: Path, *, labels: int = 8, side: int = 32) -> Path:
    """A DPT whose forward takes milliseconds: what is left is the queue's own cost.

    side: px, a multiple of 32.
    """
    torch.manual_seed(0)
    names = {number: f"class {number}" for number in range(labels)}
    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=side,
        patch_size=8 if side == 32 else 16,
        backbone_out_indices=[0, 1, 2, 3],
        reassemble_factors=[2, 1, 0.5, 0.25],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        use_auxiliary_head=False,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    DPTForSemanticSegmentation(config).save_pretrained(directory)
    DPTImageProcessorPil(
        size={"height": side, "width": side},
        keep_aspect_ratio=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(directory)
    return directory


def large_network() -> Any:
    """The architecture and sizes of Intel/dpt-large-ade with random weights: its cost, no sense."""
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        image_size=384,
        patch_size=16,
        backbone_out_indices=[5, 11, 17, 23],
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[256, 512, 1024, 1024],
        fusion_hidden_size=256,
        use_batch_norm_in_fusion_residual=True,
        num_labels=150,
    )
    network = DPTForSemanticSegmentation(config)
    # Weights as small as a fresh network's give one class everywhere: these give some dozens.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and not name.startswith("dpt.embeddings"):
                weight.normal_(0.0, 1.4 * weight[0].numel() ** -0.5)
    return network.eval()


def write_large(directory: Path) -> Path:
    """`large_network` in the hub's layout."""
    large_network().save_pretrained(directory)
    DPTImageProcessorPil(
        size={"height": 480, "width": 480},
        keep_aspect_ratio=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(directory)
    return directory
