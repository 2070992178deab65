"""Which checkpoints `Network` supports. transformers computes all others."""

from __future__ import annotations

from typing import Any

from torch import nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class UnsupportedError(Exception):
    """`Network` does not support the configuration; the message names the setting."""


def check(config: Any) -> None:
    """config: transformers' DPTConfig. Raises UnsupportedError."""
    levels = len(config.neck_hidden_sizes)
    _expect("hidden_act", config.hidden_act, tuple(ACTIVATIONS))
    _expect("type of patch_size", type(config.patch_size).__name__, ("int",))
    _expect("head_in_index", config.head_in_index, (-1, levels - 1))
    _expect("neck_ignore_stages", list(config.neck_ignore_stages), (_raw_levels(config),))
    if config.is_hybrid:
        _check_backbone(config.backbone_config)
    elif config.backbone_config is not None:
        raise UnsupportedError("a backbone that is not a hybrid's")
    if len(read_layers(config)) + len(_raw_levels(config)) != levels:
        raise UnsupportedError(f"backbone_out_indices {config.backbone_out_indices}")


def read_layers(config: Any) -> list[int]:
    """The transformer layers whose outputs the neck reads, in order."""
    first = 2 if config.is_hybrid else 0  # a hybrid's first two levels are convolutional
    read = set(config.backbone_out_indices[first:])
    return [index for index in range(config.num_hidden_layers) if index in read]


def _raw_levels(config: Any) -> list[int]:
    return [0, 1] if config.is_hybrid else []


def _check_backbone(config: Any) -> None:
    _expect("backbone", config.model_type, ("bit",))
    _expect("backbone's layer_type", config.layer_type, ("bottleneck",))
    _expect("backbone's hidden_act", config.hidden_act, ("relu",))
    _expect("number of the backbone's out_features", len(config.out_features), (3,))


def _expect(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise UnsupportedError(f"{name} {value!r}")
