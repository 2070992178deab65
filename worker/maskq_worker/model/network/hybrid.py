"""The convolutional half of DPT-Hybrid: BiT (arXiv:1912.11370) with weights standardised once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.network.rewrites import standardise


class SamePad(nn.Module):
    """Zeros around a map, so that a window with stride s gives ceil(size / s), as TensorFlow pads."""

    def __init__(self, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation + 1
        self.stride = stride

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, C, h, w). Returns (B, C, h + ..., w + ...); the odd zero goes to the end."""
        height, width = (self._missing(size) for size in values.shape[-2:])
        if not height and not width:
            return values
        around = (width // 2, width - width // 2, height // 2, height - height // 2)
        return functional.pad(values, around)

    def _missing(self, size: int) -> int:
        windows = -(-size // self.stride)
        return max(0, (windows - 1) * self.stride + self.reach - size)


class Bottleneck(nn.Module):
    """Three convolutions with GroupNorms beside a shortcut."""

    def __init__(self, source: Any) -> None:
        """source: transformers' BiT bottleneck."""
        super().__init__()
        self.shortcut = nn.Sequential()  # what comes in
        if source.downsample is not None:
            self.shortcut.append(_standardised(source.downsample.conv))
            self.shortcut.append(_group_norm(source.downsample.norm))
        self.layers = nn.Sequential(
            _standardised(source.conv1),
            _group_norm(source.norm1),
            nn.ReLU(inplace=True),
            _standardised(source.conv2),
            _group_norm(source.norm2),
            nn.ReLU(inplace=True),
            _standardised(source.conv3),
            _group_norm(source.norm3),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, I, h, w). Returns (B, O, ceil(h / stride), ceil(w / stride)), at least 0."""
        deep: torch.Tensor = self.layers(values)
        return deep.add_(self.shortcut(values)).relu_()


class Backbone(nn.Module):
    """From pixels to the three maps that DPT-Hybrid reads."""

    def __init__(self, source: Any, config: Any) -> None:
        """source: transformers' BitBackbone; config: its BitConfig."""
        super().__init__()
        stem = source.bit.embedder
        self.stem = nn.Sequential(
            _standardised(stem.convolution),
            stem.pad,  # of torch: nothing, or a ring of zeros
            _group_norm(stem.norm),
            nn.ReLU(inplace=True),
            SamePad(3, 2, 1) if config.embedding_dynamic_padding else nn.Identity(),
            nn.MaxPool2d(3, 2),  # after the ReLU, so that zeros around it change nothing
        )
        names = config.stage_names  # stem, stage1, …
        self.hidden_layers = [names.index(name) for name in names if name in config.out_features]
        stages = list(source.bit.encoder.stages)[: self.hidden_layers[-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(*(Bottleneck(layer) for layer in stage.layers)) for stage in stages
        )

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """pixels: (B, 3, H, W). Returns three maps (B, C_i, h_i, w_i), from fine to coarse."""
        maps = [self.stem(pixels)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [maps[index] for index in self.hidden_layers]


def _standardised(source: Any) -> nn.Sequential:
    """source: transformers' WeightStandardizedConv2d."""
    convolution = standardise(source, source.eps)
    if source.pad is None:
        return nn.Sequential(convolution)
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    return nn.Sequential(SamePad(kernel, stride, convolution.dilation[0]), convolution)


def _group_norm(source: Any) -> nn.GroupNorm:
    """The norm alone, sharing its weights: its activation stands beside it here."""
    norm = nn.GroupNorm(source.num_groups, source.num_channels, source.eps, device="meta")
    norm.weight, norm.bias = source.weight, source.bias
    return norm
