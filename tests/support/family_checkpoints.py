"""Checkpoints of every family in the hub's layout: tiny, every weight drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from networks import HYBRID, SMALL
from PIL import Image
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    ConvNextConfig,
    Data2VecVisionConfig,
    Data2VecVisionForSemanticSegmentation,
    DPTConfig,
    DPTForSemanticSegmentation,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    MobileViTV2Config,
    MobileViTV2ForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

SIDE: Final = 64  # px
LABELS: Final = 7
STAGES: Final = ["stage1", "stage2", "stage3", "stage4"]
_BEIT: Final[dict[str, Any]] = {
    "image_size": SIDE,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "out_indices": [1, 2, 3, 4],
    "use_relative_position_bias": True,
    "num_labels": LABELS,
}
_SQUARE: Final = {"height": SIDE, "width": SIDE}


def _upernet(backbone: Any) -> Any:
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_channels=8,
        auxiliary_in_channels=32,
        num_labels=LABELS,
    )
    return UperNetForSemanticSegmentation(config)


def _segformer() -> Any:
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
        num_labels=LABELS,
    )
    return SegformerForSemanticSegmentation(config)


def _swin() -> Any:
    return SwinConfig(
        image_size=SIDE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4,
        out_features=STAGES,
    )  # fmt: skip


def _convnext() -> Any:
    return ConvNextConfig(hidden_sizes=[8, 16, 32, 40], depths=[1, 1, 1, 1], out_features=STAGES)


def _mobilevit() -> Any:
    config = MobileViTConfig(
        image_size=SIDE,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 48],
        num_attention_heads=4,
        aspp_out_channels=16,
        num_labels=LABELS,
    )
    return MobileViTForSemanticSegmentation(config)


def _mobilevit_v2() -> Any:
    config = MobileViTV2Config(
        image_size=SIDE, width_multiplier=0.25, aspp_out_channels=16, num_labels=LABELS
    )
    return MobileViTV2ForSemanticSegmentation(config)


def _mobilenet_v2() -> Any:
    config = MobileNetV2Config(
        image_size=SIDE, depth_multiplier=0.35, output_stride=16, num_labels=LABELS
    )
    return MobileNetV2ForSemanticSegmentation(config)


# By name: the network, and its image processor.
CHECKPOINTS: Final[dict[str, tuple[Callable[[], Any], Callable[[], Any]]]] = {
    "dpt": (
        lambda: DPTForSemanticSegmentation(DPTConfig(**SMALL)),
        lambda: DPTImageProcessorPil(size=_SQUARE),
    ),
    "dpt-hybrid": (
        lambda: DPTForSemanticSegmentation(DPTConfig(**{**SMALL, **HYBRID})),
        lambda: DPTImageProcessorPil(size=_SQUARE, resample=Image.Resampling.BILINEAR),
    ),
    "segformer": (
        _segformer,
        lambda: SegformerImageProcessorPil(size=_SQUARE, do_reduce_labels=True),
    ),
    "segformer-rectangle": (
        _segformer,
        lambda: SegformerImageProcessorPil(size={"height": 64, "width": 128}),
    ),
    "upernet-swin": (
        lambda: _upernet(_swin()),
        lambda: SegformerImageProcessorPil(size=_SQUARE),
    ),
    "upernet-convnext": (
        lambda: _upernet(_convnext()),
        lambda: SegformerImageProcessorPil(size={"shortest_edge": SIDE}),
    ),
    "beit": (
        lambda: BeitForSemanticSegmentation(BeitConfig(**_BEIT)),
        lambda: BeitImageProcessorPil(size=_SQUARE, do_reduce_labels=True),
    ),
    "data2vec": (
        lambda: Data2VecVisionForSemanticSegmentation(Data2VecVisionConfig(**_BEIT)),
        lambda: BeitImageProcessorPil(size=_SQUARE),
    ),
    "mobilevit": (
        _mobilevit,
        lambda: MobileViTImageProcessorPil(size={"shortest_edge": 72}, crop_size=_SQUARE),
    ),
    "mobilevit-v2": (
        _mobilevit_v2,
        lambda: MobileViTImageProcessorPil(size=_SQUARE, do_center_crop=False),
    ),
    "mobilenet-v2": (
        _mobilenet_v2,
        lambda: MobileNetV2ImageProcessorPil(
            size={"shortest_edge": 60}, crop_size={"height": 65, "width": 65}
        ),
    ),
}  # fmt: skip


def write(directory: Path, name: str) -> Path:
    """One of CHECKPOINTS, in `directory`."""
    network, processor = (make() for make in CHECKPOINTS[name])
    draw_weights(network)
    network.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def draw_weights(network: Any) -> None:
    """Every parameter, and every running mean and variance: scores then differ from pixel to pixel."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                norm = name.endswith("weight") or "layer_scale" in name or "lambda" in name
                parameter.copy_(norm + 0.3 * torch.randn(parameter.shape, generator=draw))
            else:
                scale = 1.5 / parameter[0].numel() ** 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=draw))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=draw))
        # Else one class may win everywhere.
        scores = network.eval()(torch.randn(1, 3, SIDE, SIDE, generator=draw)).logits
        for name, module in network.named_modules():
            classifies = isinstance(module, torch.nn.Conv2d) and module.out_channels == LABELS
            if classifies and "auxiliary" not in name and module.bias is not None:
                module.bias -= scores.mean(dim=(0, 2, 3))
