"""The transformer: from pixels, or a hybrid's feature map, to the hidden states that the neck reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.network.supported import ACTIVATIONS, read_layers


class Embedding(nn.Module):
    """Patches and the readout token, each with its position."""

    def __init__(self, source: Any, projection: nn.Conv2d) -> None:
        """source: transformers' embeddings. projection: makes patches of the input."""
        super().__init__()
        self.projection = projection
        self.cls_token = source.cls_token  # (1, 1, C)
        self.positions = source.position_embeddings  # (1, 1 + n * n, C)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """values: (B, I, H, W). Returns tokens (B, 1 + h * w, C), the readout token first; (h, w)."""
        patches = self.projection(values)
        height, width = patches.shape[-2:]
        tokens = torch.cat(
            [self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1
        )
        return tokens.add_(self.positions_on(height, width)), (height, width)

    def positions_on(self, height: int, width: int) -> torch.Tensor:
        """The checkpoint's square of positions stretched to a grid: (1, 1 + height * width, C).

        Not cached: 0.3 % of the demo's forward, 0.1 % of DPT-Large's, against a cache of all sizes.
        """
        if self.positions.shape[1] == 1 + height * width and height == width:
            positions: torch.Tensor = self.positions  # the trained grid
            return positions
        side = int((self.positions.shape[1] - 1) ** 0.5)
        square = self.positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        stretched = functional.interpolate(
            square, size=(height, width), mode="bilinear", align_corners=False
        )
        return torch.cat([self.positions[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """Attention and a perceptron, each after a LayerNorm and with a shortcut."""

    def __init__(self, source: Any, config: Any) -> None:
        """source: transformers' layer."""
        super().__init__()
        attention = source.attention.attention
        self.heads: int = config.num_attention_heads
        self.before_attention = source.layernorm_before
        # Not fused into one product: on a CPU that saves 0.1 % of the time (median of 25 pairs, one
        # thread, DPT-Large) and costs a copy of 300 MB that lies in the checkpoint's file anyway.
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.attended = source.attention.output.dense
        self.before_perceptron = source.layernorm_after
        self.widen = source.intermediate.dense
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.narrow = source.output.dense

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, N, C), left as they are. Returns the same shape."""
        tokens = tokens + self.attended(self._attend(self.before_attention(tokens)))
        wide = self.activation(self.widen(self.before_perceptron(tokens)))
        return tokens.add_(self.narrow(wide))

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, N, C) -> (B, N, C): every token's mean of all values, all heads joined."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """All layers. Keeps the outputs that the neck reads."""

    def __init__(self, source: Any, config: Any) -> None:
        """source: transformers' encoder."""
        super().__init__()
        self.hidden_layers = read_layers(config)
        # The neck reads no layer after these.
        self.blocks = nn.ModuleList(
            Block(layer, config) for layer in source.layer[: self.hidden_layers[-1] + 1]
        )

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """tokens: (B, N, C). Returns (B, N, C) of each layer that the neck reads."""
        kept = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.hidden_layers:
                kept.append(tokens)
        return kept
