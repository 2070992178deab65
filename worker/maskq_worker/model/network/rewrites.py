"""The algebra: other layers with the same result, up to rounding. Each stands alone.

All arithmetic on weights is done in float64 and rounded once, to the weights' own type.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def fold_batch_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution (O, I, kh, kw) for a convolution and the BatchNorm after it.

    In evaluation y = (conv(x) - mean) * scale + shift with scale = weight / sqrt(var + eps), which is
    linear in the convolution's weight and bias (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
    """
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    shift = norm.bias.double() - mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    return _like(convolution, convolution.weight.double() * scale[:, None, None, None], shift)


def standardise(convolution: nn.Conv2d, eps: float) -> nn.Conv2d:
    """A plain convolution for one that standardises its weight (O, I, kh, kw) on every forward.

    Mean 0 and variance 1 over each output channel's own weights (Qiao et al., arXiv:1903.10520):
    that depends on no input.
    """
    weight = convolution.weight.double()
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    bias = None if convolution.bias is None else convolution.bias.double()
    return _like(convolution, (weight - mean) / (variance + eps).sqrt(), bias)


def split_readout(linear: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """Two layers (C, C), of the tokens and of the readout token, for one (C, 2C) of both joined.

    W [h; cls] + b = W1 h + (W2 cls + b): the second term is the same for all tokens, so it is
    computed once instead of once a token.
    """
    weight = linear.weight.detach()
    half = weight.shape[1] // 2
    bias = None if linear.bias is None else linear.bias.detach()
    return (
        _linear(weight[:, :half].contiguous(), None),
        _linear(weight[:, half:].contiguous(), bias),
    )


def as_linear(convolution: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution (O, I, 1, 1) as a layer of tokens; shares its weights."""
    bias = None if convolution.bias is None else convolution.bias.detach()
    return _linear(convolution.weight.detach().flatten(1), bias)


def upsample(values: torch.Tensor) -> torch.Tensor:
    """values (B, C, h, w) -> (B, C, 2h, 2w), bilinear, corner on corner."""
    return functional.interpolate(values, scale_factor=2, mode="bilinear", align_corners=True)


def _like(convolution: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    """A convolution of the same geometry with these weights, in the same type."""
    made = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]  # torch annotates a tuple of any length
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=bias is not None,
        device="meta",  # no memory, no random numbers: the weights are set below
    )
    made.weight = _fixed(weight.to(convolution.weight.dtype))
    if bias is not None:
        made.bias = _fixed(bias.to(convolution.weight.dtype))
    return made


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = _fixed(weight)
    if bias is not None:
        made.bias = _fixed(bias)
    return made


def _fixed(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)
