"""Layers of `model/network/`, made of `TorchOperations`: the same results up to rounding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.cuda.coarse import CoarseHead
from maskq_worker.model.cuda.fused.operations import SplitClassifier, TorchOperations
from maskq_worker.model.network.neck import Fusion, Neck, Residual
from maskq_worker.model.network.rewrites import as_linear
from maskq_worker.model.network.vit import Block, Transformer


class PatchProduct(nn.Module):
    """A convolution whose windows do not overlap, as one matrix product."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """convolution: kernel and stride of one size, no padding."""
        super().__init__()
        self.size: int = convolution.kernel_size[0]
        weight = convolution.weight.detach().permute(0, 2, 3, 1).flatten(1)  # as pixels lie
        bias = None if convolution.bias is None else convolution.bias.detach()
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, I, H, W). Returns (B, O, H / size, W / size)."""
        places = values.permute(0, 2, 3, 1)
        rows = places.unflatten(1, (-1, self.size)).unflatten(3, (-1, self.size))
        patches = rows.permute(0, 1, 3, 2, 4, 5).flatten(3)  # (B, h, w, size * size * I)
        return functional.linear(patches, self.weight, self.bias).permute(0, 3, 1, 2)


class FusedBlock(nn.Module):
    """Attention and perceptron without their norms and shortcuts, which `FusedTransformer` adds."""

    def __init__(self, block: Block, operations: TorchOperations) -> None:
        super().__init__()
        self.operations = operations
        self.heads = block.heads
        self.before_attention = block.before_attention
        self.query_key_value = _joined(block.query, block.key, block.value)
        self.attended = block.attended
        self.before_perceptron = block.before_perceptron
        self.widen = block.widen
        self.activation = block.activation
        self.narrow = block.narrow

    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, N, C), normalised. Returns the same shape."""
        joined = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B, heads, N, C / heads) each
        mixed = functional.scaled_dot_product_attention(query, key, value)
        answer: torch.Tensor = self.attended(mixed.transpose(1, 2).flatten(2))
        return answer

    def perceptron(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (B, N, C), normalised. Returns the same shape."""
        answer: torch.Tensor = self.narrow(
            self.operations.widen(self.widen, self.activation, tokens)
        )
        return answer


class FusedTransformer(nn.Module):
    """`Transformer`, each shortcut together with the norm that follows it."""

    def __init__(self, transformer: Transformer, operations: TorchOperations) -> None:
        super().__init__()
        self.operations = operations
        self.hidden_layers = transformer.hidden_layers
        self.blocks = nn.ModuleList(
            FusedBlock(block, operations)  # type: ignore[arg-type]  # a ModuleList of blocks
            for block in transformer.blocks
        )

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """tokens: (B, N, C). Returns (B, N, C) of each layer that the neck reads."""
        kept = []
        blocks: list[FusedBlock] = list(self.blocks)  # type: ignore[arg-type]
        add_and_normalise = self.operations.add_and_normalise
        normed = blocks[0].before_attention(tokens)
        for index, (block, following) in enumerate(zip(blocks, [*blocks[1:], None], strict=True)):
            change = block.attention(normed)
            tokens, normed = add_and_normalise(tokens, change, block.before_perceptron)
            change = block.perceptron(normed)
            if following is None:
                tokens = tokens.add_(change)
            else:
                tokens, normed = add_and_normalise(tokens, change, following.before_attention)
            if index in self.hidden_layers:
                kept.append(tokens)
        return kept


class FusedResidual(nn.Module):
    """`Residual` whose second convolution's bias and shortcut are one pass."""

    def __init__(self, residual: Residual, operations: TorchOperations) -> None:
        super().__init__()
        self.operations = operations
        self.first, self.second = residual.first, residual.second
        bias = self.second.bias
        if bias is None:
            bias = nn.Parameter(self.second.weight.new_zeros(self.second.out_channels), False)
        self.bias = bias

    def forward(
        self,
        values: torch.Tensor,
        positive: torch.Tensor,
        other: torch.Tensor | None = None,
        *,
        rectified: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The residual layer's output (+ other), and if `rectified` the ReLU of that as well.

        values, other: (B, C, h, w). positive: the ReLU of values.
        """
        inner = self.operations.convolve_and_rectify(self.first, positive)
        second = functional.conv2d(inner, self.second.weight, None, padding=self.second.padding)
        return self.operations.add_maps(second, self.bias, values, other, rectified=rectified)


class FusedFusion(nn.Module):
    """`Fusion` whose sums are one pass each, and whose projection is a matrix product."""

    def __init__(self, fusion: Fusion, operations: TorchOperations) -> None:
        super().__init__()
        self.of_level = (
            None if fusion.of_level is None else FusedResidual(fusion.of_level, operations)
        )
        self.of_both = FusedResidual(fusion.of_both, operations)
        self.projection = as_linear(fusion.projection)

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        """level: (B, C, h, w); coarser: (B, C, H, W), or None for the first. Returns (B, C, H, W)."""
        positive: torch.Tensor | None
        if coarser is None or self.of_level is None:
            both, positive = level, functional.relu(level)
        else:
            if level.shape != coarser.shape:
                level = functional.interpolate(
                    level, size=coarser.shape[-2:], mode="bilinear", align_corners=False
                )
            both, positive = self.of_level(level, functional.relu(level), coarser, rectified=True)
        mixed, _ = self.of_both(both, positive)
        projected: torch.Tensor = self.projection(mixed.permute(0, 2, 3, 1))
        return projected.permute(0, 3, 1, 2)


class FusedNeck(nn.Module):
    """`Neck` with the faster upsampling."""

    def __init__(self, neck: Neck, operations: TorchOperations) -> None:
        super().__init__()
        self.operations = operations
        self.reassemblies, self.convolutions = neck.reassemblies, neck.convolutions
        self.fusions = nn.ModuleList(
            FusedFusion(fusion, operations)  # type: ignore[arg-type]  # a ModuleList of fusions
            for fusion in neck.fusions
        )

    def forward(
        self, maps: list[torch.Tensor], states: list[torch.Tensor], grid: tuple[int, int]
    ) -> torch.Tensor:
        """As `Neck`."""
        finer = [
            *maps,
            *(layer(state, grid) for layer, state in zip(self.reassemblies, states, strict=True)),
        ]
        fused = None
        pairs = list(zip(self.convolutions, finer, strict=True))
        for fusion, (convolution, values) in zip(self.fusions, reversed(pairs), strict=True):
            coarser = None if fused is None else self.operations.upsample(fused)
            fused = fusion(convolution(values), coarser)
        assert fused is not None  # noqa: S101 (for mypy: there is at least one level)
        return fused


class FusedHead(nn.Module):
    """`CoarseHead` whose classifier is float32 on the tensor cores."""

    def __init__(self, head: CoarseHead, operations: TorchOperations, dtype: torch.dtype) -> None:
        super().__init__()
        self.operations = operations
        self.convolution = head.convolution
        self.classifier = SplitClassifier.of(head.classifier, dtype)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, F, h, w), to be upsampled. Returns (B, classes, 2h, 2w), to be upsampled."""
        large = self.operations.upsample(values)
        deep = self.operations.convolve_and_rectify(self.convolution, large)
        return self.operations.classify(deep, self.classifier)


def _joined(*linears: nn.Linear) -> nn.Linear:
    """One layer for several of the same input: their outputs one after the other."""
    first = linears[0]
    outputs = sum(linear.out_features for linear in linears)
    joined = nn.Linear(first.in_features, outputs, device="meta")
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [
        linear.weight.new_zeros(linear.out_features)
        if linear.bias is None
        else linear.bias.detach()
        for linear in linears
    ]
    joined.weight = nn.Parameter(weight, requires_grad=False)
    joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined
