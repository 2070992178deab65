"""Checkpoints in the hub's layout, random weights: to measure and test all but the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_smallest(directory: Path, *, labels: int = 8, side: int = 32) -> Path:
    """A DPT whose forward takes milliseconds: what is left is the queue's own cost.

    Written without transformers, whose import takes seconds.

    side: px, a multiple of 32.
    """
    names = {number: f"class {number}" for number in range(labels)}
    config = {
        "model_type": "dpt",
        "architectures": ["DPTForSemanticSegmentation"],
        "dtype": "float32",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": side,
        "patch_size": 8 if side == 32 else 16,
        "backbone_out_indices": [0, 1, 2, 3],
        "reassemble_factors": [2, 1, 0.5, 0.25],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "use_auxiliary_head": False,
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
    processor = {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "keep_aspect_ratio": False,
        "ensure_multiple_of": 1,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_pad": False,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    _write_weights(config, directory / "model.safetensors")
    return directory


def _write_weights(config: dict[str, Any], file: Path) -> None:
    """Random weights for a plain DPT of this config.json."""
    import torch
    from safetensors.torch import save_file

    from maskq_worker.model.network import skeleton

    torch.manual_seed(0)
    network = skeleton.Skeleton(skeleton.read(config)).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            module.reset_parameters()
    # Weights as small as a fresh network's give one class everywhere: these give several.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.4 * weight[0].numel() ** -0.5)
            elif name.endswith(".bias"):
                weight.zero_()
    save_file(network.state_dict(), file, metadata={"format": "pt"})


def large_network() -> Any:
    """The architecture and sizes of Intel/dpt-large-ade with random weights: its cost, no sense."""
    import torch
    from transformers import DPTConfig, DPTForSemanticSegmentation

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
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    large_network().save_pretrained(directory)
    DPTImageProcessorPil(
        size={"height": 480, "width": 480},
        keep_aspect_ratio=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(directory)
    return directory
