"""SegFormer (arXiv:2105.15203). Its scores have a quarter of the input's size."""

from __future__ import annotations

from typing import Final

from maskq_worker.model.families.family import Family

# It has no positions: any size will do.
SEGFORMER: Final = Family("segformer", "SegformerForSemanticSegmentation", stride=32)
