"""What differs between families, and what holds for all that transformers computes."""

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

# Weights that no score depends on: heads for training, counters, and what is computed anyway.
_NOT_NEEDED: Final = re.compile(
    r"auxiliary_head\.|.*num_batches_tracked$|.*relative_position_index$"
)


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints of one class of transformers, computed by transformers."""

    model_type: str  # in config.json
    architecture: str  # transformers' class
    # px that sides of other sizes than the trained one are multiples of; None: it takes no other size
    stride: int | None = None
    squares: bool = False  # whether transformers' network takes nothing but squares
    not_needed: re.Pattern[str] = _NOT_NEEDED  # names of weights that may be missing

    def multiple(self, config: Mapping[str, Any], side: int) -> int | None:
        """`stride`, if it depends on the checkpoint. config: of config.json; side: as trained, px."""
        return self.stride

    def preprocessor(self, directory: Path) -> Preprocessor:
        """Raises ModelError for an image processor whose work maskq cannot repeat."""
        from maskq_worker.model.preprocess.preprocessor import Preprocessor

        return Preprocessor.from_checkpoint(directory, squares=False, usual="")

    def reference(self, directory: Path, dtype: torch.dtype) -> nn.Module:
        """transformers' network. Raises ModelError."""
        from maskq_worker.model.checkpoint.loading import load_network

        return load_network(directory, dtype, self)

    def network(self, directory: Path, device: torch.device) -> nn.Module:
        """What computes scores (B, C, h, w) of pixels (B, 3, H, W), in float32. Raises ModelError."""
        import torch

        from maskq_worker.model.checkpoint.loading import ScoresOf

        return ScoresOf(self.reference(directory, torch.float32)).to(device)
