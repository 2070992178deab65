"""Places for a checkpoint's weights, by transformers' names, for `Network` to take apart.

A skeleton computes nothing. On torch's meta device it takes no memory until the weights are assigned,
and it needs no import of transformers, which takes longer than loading them. It supports a plain DPT
only: transformers loads a hybrid, a quantised checkpoint and the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

import torch
from torch import nn

from maskq_worker.model.network.supported import UnsupportedError, check

# Settings that mean another network, or another layout of the weights.
_UNSUPPORTED = (
    "is_hybrid",
    "backbone",
    "backbone_config",
    "quantization_config",
    "compression_config",
    "per_layer_config",
)


@dataclass(frozen=True, slots=True)
class Config:
    """What config.json says about a plain DPT. Names and defaults are transformers' own."""

    num_labels: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int = 384  # px
    patch_size: int = 16  # px
    num_channels: int = 3
    qkv_bias: bool = True
    backbone_out_indices: tuple[int, ...] = (2, 5, 8, 11)
    readout_type: str = "project"  # ignore | add | project
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    neck_hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    fusion_hidden_size: int = 256
    head_in_index: int = -1
    use_batch_norm_in_fusion_residual: bool = False
    use_bias_in_fusion_residual: bool | None = None  # None: only without norms
    use_auxiliary_head: bool = True
    is_hybrid: bool = False
    backbone_config: None = None
    neck_ignore_stages: tuple[int, ...] = ()  # a setting of hybrids only


def read(settings: Mapping[str, Any]) -> Config:
    """Read the settings of config.json. Raises UnsupportedError for those that need transformers."""
    for key in _UNSUPPORTED:
        if settings.get(key) not in (None, False):
            raise UnsupportedError(key)
    given = {
        field.name: _value(field, settings[field.name])
        for field in fields(Config)
        if field.name in settings and field.name not in ("num_labels", "neck_ignore_stages")
    }
    config = Config(**given | {"num_labels": _number_of_labels(settings)})
    check(config)
    _check_sizes(config)
    return config


class Skeleton(nn.Module):
    """The modules of DPTForSemanticSegmentation that hold weights, on the meta device."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.dpt = _transformer(config)
            self.neck = _neck(config)
            self.head = _head(config)
            if config.use_auxiliary_head:
                self.auxiliary_head = _head(config)


def _transformer(config: Config) -> nn.Module:
    size, patch = config.hidden_size, config.patch_size
    places = 1 + (config.image_size // patch) ** 2
    projection = nn.Conv2d(config.num_channels, size, kernel_size=patch, stride=patch)
    return _named(
        embeddings=_named(
            cls_token=nn.Parameter(torch.empty(1, 1, size)),
            position_embeddings=nn.Parameter(torch.empty(1, places, size)),
            patch_embeddings=_named(projection=projection),
        ),
        encoder=_named(
            layer=nn.ModuleList(_layer(config) for _ in range(config.num_hidden_layers))
        ),
        layernorm=nn.LayerNorm(size, eps=config.layer_norm_eps),
    )


def _layer(config: Config) -> nn.Module:
    size, wide = config.hidden_size, config.intermediate_size
    projections = {
        name: nn.Linear(size, size, bias=config.qkv_bias) for name in ("query", "key", "value")
    }
    return _named(
        layernorm_before=nn.LayerNorm(size, eps=config.layer_norm_eps),
        attention=_named(
            attention=_named(**projections), output=_named(dense=nn.Linear(size, size))
        ),
        layernorm_after=nn.LayerNorm(size, eps=config.layer_norm_eps),
        intermediate=_named(dense=nn.Linear(size, wide)),
        output=_named(dense=nn.Linear(wide, size)),
    )


def _neck(config: Config) -> nn.Module:
    size, fused = config.hidden_size, config.fusion_hidden_size
    channels = config.neck_hidden_sizes
    levels = zip(channels, config.reassemble_factors, strict=True)
    stage = _named(
        layers=nn.ModuleList(
            _named(projection=nn.Conv2d(size, one, kernel_size=1), resize=_resize(one, factor))
            for one, factor in levels
        )
    )
    if config.readout_type == "project":
        stage.readout_projects = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * size, size)) for _ in channels
        )
    return _named(
        reassemble_stage=stage,
        convs=nn.ModuleList(
            nn.Conv2d(one, fused, kernel_size=3, padding=1, bias=False) for one in channels
        ),
        fusion_stage=_named(layers=nn.ModuleList(_fusion(config) for _ in channels)),
    )


def _resize(channels: int, factor: float) -> nn.Module:
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, kernel_size=int(factor), stride=int(factor))
    if factor == 1:
        return nn.Identity()
    return nn.Conv2d(channels, channels, kernel_size=3, stride=int(1 / factor), padding=1)


def _fusion(config: Config) -> nn.Module:
    size = config.fusion_hidden_size
    return _named(
        projection=nn.Conv2d(size, size, kernel_size=1),
        residual_layer1=_residual(config),
        residual_layer2=_residual(config),
    )


def _residual(config: Config) -> nn.Module:
    size, norms = config.fusion_hidden_size, config.use_batch_norm_in_fusion_residual
    biases = config.use_bias_in_fusion_residual
    biases = not norms if biases is None else biases
    residual = _named(
        convolution1=nn.Conv2d(size, size, kernel_size=3, padding=1, bias=biases),
        convolution2=nn.Conv2d(size, size, kernel_size=3, padding=1, bias=biases),
    )
    residual.use_batch_norm = norms
    if norms:
        residual.batch_norm1, residual.batch_norm2 = nn.BatchNorm2d(size), nn.BatchNorm2d(size)
    return residual


def _head(config: Config) -> nn.Module:
    """The segmentation head. Layers 0, 1 and 4 hold weights; those between hold none."""
    size = config.fusion_hidden_size
    return _named(
        head=nn.Sequential(
            nn.Conv2d(size, size, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(size),
            nn.Identity(),
            nn.Identity(),
            nn.Conv2d(size, config.num_labels, kernel_size=1),
        )
    )


def _named(**parts: nn.Module | nn.Parameter) -> Any:
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def _value(field: Field[Any], value: Any) -> Any:
    """A value of the default's type. transformers interprets or refuses other types."""
    if isinstance(field.default, tuple):
        numbers = {type(one) for one in field.default}
        if type(value) is list and all(type(one) in numbers for one in value):
            return tuple(value)
    elif type(value) is type(field.default) or (field.default is None and type(value) is bool):
        return value
    raise UnsupportedError(f"{field.name} {value!r}")


def _number_of_labels(settings: Mapping[str, Any]) -> int:
    labels = settings.get("id2label")
    if labels is None:
        number = settings.get("num_labels", 2)
        if type(number) is not int or number < 1:
            raise UnsupportedError(f"num_labels {number!r}")
        return number
    if not isinstance(labels, dict) or not labels or not all(key.isdecimal() for key in labels):
        raise UnsupportedError("id2label")
    return len({int(key) for key in labels})


def _check_sizes(config: Config) -> None:
    """Refuse sizes that transformers refuses, with its own message, or cannot run."""
    heads = config.num_attention_heads
    if heads < 1 or config.hidden_size % heads:
        raise UnsupportedError(f"num_attention_heads {heads}")
    if config.readout_type not in ("ignore", "add", "project"):
        raise UnsupportedError(f"readout_type {config.readout_type!r}")
    factors = config.reassemble_factors
    whole = all(factor > 0 and (factor <= 1 or type(factor) is int) for factor in factors)
    if not whole or len(factors) != len(config.neck_hidden_sizes):
        raise UnsupportedError(f"reassemble_factors {list(factors)}")
