"""From hidden states to one map: reassemble each as an image, fuse them from coarse to fine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.network.rewrites import (
    as_linear,
    fold_batch_norm,
    split_readout,
    upsample,
)
from maskq_worker.model.network.supported import ACTIVATIONS


class Ignore(nn.Module):
    """The readout token is dropped."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, 1 + N, C). Returns (B, N, C)."""
        return tokens[:, 1:]


class Add(nn.Module):
    """The readout token is added to every other."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, 1 + N, C). Returns (B, N, C)."""
        return tokens[:, 1:] + tokens[:, :1]


class Project(nn.Module):
    """A linear layer of each token and the readout token, then the activation."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.of_token, self.of_readout = split_readout(linear)
        self.activation = activation

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, 1 + N, C). Returns (B, N, C)."""
        mixed = self.of_token(tokens[:, 1:]).add_(self.of_readout(tokens[:, :1]))
        answer: torch.Tensor = self.activation(mixed)
        return answer


class Reassembly(nn.Module):
    """The tokens of one hidden state as a map at the size of its level."""

    def __init__(self, readout: nn.Module, source: Any) -> None:
        """source: transformers' reassemble layer."""
        super().__init__()
        self.readout = readout
        self.projection = as_linear(source.projection)
        self.resize = source.resize

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """tokens: (B, 1 + h * w, C), grid: (h, w). Returns (B, O, h * factor, w * factor)."""
        projected = self.projection(self.readout(tokens))
        answer: torch.Tensor = self.resize(projected.unflatten(1, grid).permute(0, 3, 1, 2))
        return answer


class Residual(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, with a shortcut."""

    def __init__(self, source: Any) -> None:
        """source: transformers' pre-activation residual layer."""
        super().__init__()
        self.first, self.second = source.convolution1, source.convolution2
        if source.use_batch_norm:
            self.first = fold_batch_norm(self.first, source.batch_norm1)
            self.second = fold_batch_norm(self.second, source.batch_norm2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, C, h, w). Returns the same shape."""
        inner = self.first(functional.relu(values)).relu_()
        return values + self.second(inner)


class Fusion(nn.Module):
    """The map of the coarser levels with one more level, projected.

    transformers upsamples first. A weighted mean over places and a linear map over channels commute,
    and so does the bias, since the weights of a mean sum to one: a quarter of the work.
    """

    def __init__(self, source: Any, *, first: bool) -> None:
        """source: transformers' fusion layer. The first has no coarser level."""
        super().__init__()
        self.of_level = None if first else Residual(source.residual_layer1)
        self.of_both = Residual(source.residual_layer2)
        self.projection = source.projection

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        """level: (B, C, h, w); coarser: (B, C, H, W), or None for the first. Returns (B, C, H, W)."""
        if coarser is None or self.of_level is None:
            both = level
        else:
            if level.shape != coarser.shape:
                level = functional.interpolate(
                    level, size=coarser.shape[-2:], mode="bilinear", align_corners=False
                )
            both = self.of_level(level).add_(coarser)
        projected: torch.Tensor = self.projection(self.of_both(both))
        return projected


class Neck(nn.Module):
    """All levels, from the finest to the coarsest, to one map."""

    def __init__(self, source: Any, config: Any) -> None:
        """source: transformers' neck."""
        super().__init__()
        stage = source.reassemble_stage
        self.raw: int = len(config.neck_ignore_stages)  # levels that are maps already
        self.reassemblies = nn.ModuleList(
            Reassembly(_readout(stage, index, config), stage.layers[index])
            for index in range(self.raw, len(stage.layers))
        )
        self.convolutions = source.convs
        self.fusions = nn.ModuleList(
            Fusion(layer, first=index == 0)
            for index, layer in enumerate(source.fusion_stage.layers)
        )

    def forward(
        self, maps: list[torch.Tensor], states: list[torch.Tensor], grid: tuple[int, int]
    ) -> torch.Tensor:
        """maps: a hybrid's (B, C_i, h_i, w_i); states: (B, 1 + h * w, C); grid: (h, w).

        Returns (B, F, H, W), as large as the finest level: the head takes it upsampled.
        """
        finer = [
            *maps,
            *(layer(state, grid) for layer, state in zip(self.reassemblies, states, strict=True)),
        ]
        levels = [
            convolution(values)
            for convolution, values in zip(self.convolutions, finer, strict=True)
        ]
        fused = None
        for fusion, level in zip(self.fusions, reversed(levels), strict=True):
            fused = fusion(level, None if fused is None else upsample(fused))
        assert fused is not None  # noqa: S101 (for mypy: there is at least one level)
        return fused


def _readout(stage: Any, index: int, config: Any) -> nn.Module:
    if config.readout_type == "ignore":
        return Ignore()
    if config.readout_type == "add":
        return Add()
    return Project(stage.readout_projects[index][0], ACTIVATIONS[config.hidden_act]())
