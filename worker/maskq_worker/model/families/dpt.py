"""DPT and DPT-Hybrid (arXiv:2103.13413), computed by our own network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from maskq_worker.model.families.family import Family

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DPTFamily(Family):
    """transformers' head takes squares only; our network takes any rectangle of whole patches."""

    def multiple(self, config: Mapping[str, Any], side: int) -> int | None:
        """The side of a patch, or of two if the trained size allows: the coarsest level halves the
        grid of patches."""
        patch = config.get("patch_size") or 16
        patch = max(patch) if isinstance(patch, list) else patch
        pair = 2 * patch
        factors = config.get("reassemble_factors") or [0.5]
        coarsest = round(patch / min(*factors, 1))
        return next((one for one in (coarsest, pair) if side % one == 0), patch)

    def preprocessor(self, directory: Path) -> Preprocessor:
        from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor

        return load_preprocessor(directory)

    def network(self, directory: Path, device: torch.device) -> nn.Module:
        from maskq_worker.model.checkpoint.loading import TransformersNetwork, load_source
        from maskq_worker.model.network import Network, UnsupportedError

        # Folded in float32 even if the network will compute in half precision, and rounded once.
        source = load_source(directory, self, device)
        try:
            return Network(source)
        except UnsupportedError as error:
            _log.warning(
                "%s is a DPT that maskq's own network does not support (%s): transformers computes "
                "its scores",
                directory,
                error,
            )
            return TransformersNetwork(source.to(device))


DPT: Final = DPTFamily(
    model_type="dpt",
    architecture="DPTForSemanticSegmentation",
    squares=True,
    # The first fusion layer has no second input, so Intel's checkpoints lack the layer for it.
    not_needed=re.compile(
        r"neck\.fusion_stage\.layers\.0\.residual_layer1\.|auxiliary_head\.|.*num_batches_tracked$"
    ),
    attention="sdpa",
)
