"""A family of networks: what differs between families. By default transformers computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

# Weights that no score depends on: heads for training, counters, and tables that are computed.
_NOT_NEEDED: Final = re.compile(
    r"auxiliary_head\.|.*num_batches_tracked$|.*relative_position_index$"
)


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints of one class of transformers, computed by transformers."""

    model_type: str  # in config.json
    architecture: str  # transformers' class
    # px. The sides of an input may be any multiple of it; None: the network takes its trained size only
    stride: int | None = None
    squares: bool = False  # whether transformers' network takes only square inputs
    not_needed: re.Pattern[str] = _NOT_NEEDED  # names of weights that may be missing
    attention: str | None = None  # the implementation to ask transformers for; None: its own choice

    def multiple(self, config: Mapping[str, Any], side: int) -> int | None:
        """The stride of one checkpoint, px, or None as for `stride`.

        config: the content of config.json. side: the trained size, px.
        """
        return self.stride

    def preprocessor(self, directory: Path) -> Preprocessor:
        """Raises ModelError for an image processor that maskq cannot reproduce."""
        from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor

        return load_preprocessor(directory, squares=False, default_processor="")

    def transformers_network(self, directory: Path, dtype: torch.dtype) -> nn.Module:
        """Load transformers' network. Raises ModelError."""
        from maskq_worker.model.checkpoint.loading import load_network

        network: nn.Module = load_network(directory, dtype, self)
        return network

    def network(self, directory: Path, device: torch.device) -> nn.Module:
        """Load what computes scores (B, C, h, w) from pixels (B, 3, H, W), in float32 on `device`.

        Raises ModelError.
        """
        import torch

        from maskq_worker.model.checkpoint.loading import TransformersNetwork

        return TransformersNetwork(self.transformers_network(directory, torch.float32)).to(device)
