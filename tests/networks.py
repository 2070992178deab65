"""transformers' own networks, small, of every kind that ours knows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DPTConfig, DPTForSemanticSegmentation

SMALL: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 5,  # the last is read by nobody
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 12, 16, 20],
    "fusion_hidden_size": 12,
    "num_labels": 7,
}
BIT: dict[str, Any] = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "embedding_dynamic_padding": True,
    "embedding_size": 16,
    "hidden_sizes": [8, 16, 40],
    "depths": [1, 2, 1],
    "num_groups": 2,
    "out_features": ["stage1", "stage2", "stage3"],
}
HYBRID: dict[str, Any] = {
    "is_hybrid": True,
    "backbone_config": BIT,
    "backbone_featmap_shape": [1, 40, 4, 4],
    "neck_hidden_sizes": [8, 16, 16, 20],
    "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_out_indices": [0, 1, 2, 4],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as Intel's": {"use_batch_norm_in_fusion_residual": True},
    "no norms in the fusion": {},
    "norms and biases": {
        "use_batch_norm_in_fusion_residual": True,
        "use_bias_in_fusion_residual": True,
    },
    "readout ignored": {"readout_type": "ignore"},
    "readout added": {"readout_type": "add"},
    "other sizes": {
        "patch_size": 8,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "fusion_hidden_size": 20,
        "num_labels": 150,
        "reassemble_factors": [2, 1, 0.5, 0.25],
        "backbone_out_indices": [0, 1, 2, 4],
    },
    "many channels in the head": {"fusion_hidden_size": 256},
    "without qkv bias": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "no auxiliary head": {"use_auxiliary_head": False},
    "hybrid": HYBRID,
    "hybrid, padded in the middle": {
        **HYBRID,
        "backbone_config": {**BIT, "global_padding": None, "embedding_dynamic_padding": False},
    },
}


def network(dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """transformers' own, every parameter and every running mean and variance drawn at random."""
    source = DPTForSemanticSegmentation(DPTConfig(**{**SMALL, **changes})).eval().to(dtype)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in source.parameters():
            scale = 0.4 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))
        for name, buffer in source.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draw))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=draw))
    return source
