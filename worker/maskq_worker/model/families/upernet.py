"""UPerNet (arXiv:1807.10221) on any of transformers' backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from maskq_worker.model.families.family import Family

_STRIDE: Final = 32  # px: of the coarsest level of these
_OF_ANY_SIZE: Final = frozenset({"convnext", "convnextv2", "focalnet", "resnet", "swin", "swinv2"})


@dataclass(frozen=True, slots=True)
class UPerNetFamily(Family):
    """Whether other sizes will do is the backbone's to say."""

    def multiple(self, config: Mapping[str, Any], side: int) -> int | None:
        backbone = (config.get("backbone_config") or {}).get("model_type")
        return _STRIDE if backbone in _OF_ANY_SIZE else None


UPERNET: Final = UPerNetFamily("upernet", "UperNetForSemanticSegmentation")
