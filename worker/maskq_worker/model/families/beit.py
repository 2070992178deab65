"""BEiT (arXiv:2106.08254) and Data2Vec (arXiv:2202.03555), which share an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from maskq_worker.model.families.family import Family


@dataclass(frozen=True, slots=True)
class BeitFamily(Family):
    """transformers stretches the relative positions to other sizes."""

    def multiple(self, config: Mapping[str, Any], side: int) -> int | None:
        patch = config.get("patch_size") or 16
        return patch if isinstance(patch, int) else None


BEIT: Final = BeitFamily("beit", "BeitForSemanticSegmentation")
# Its grid of patches is config.json's, whatever the input: other sizes fail, or would be scrambled.
DATA2VEC: Final = Family("data2vec-vision", "Data2VecVisionForSemanticSegmentation")
