"""MobileViT (arXiv:2110.02178) and MobileViTV2 (arXiv:2206.02680). Their images are cropped."""

from __future__ import annotations

from typing import Final

from maskq_worker.model.families.family import Family

# Convolutions, and attention between patches that transformers resizes to fit: any size will do.
MOBILEVIT: Final = Family("mobilevit", "MobileViTForSemanticSegmentation", stride=32)
MOBILEVIT_V2: Final = Family("mobilevitv2", "MobileViTV2ForSemanticSegmentation", stride=32)
