"""MobileNetV2 with DeepLabV3+ (arXiv:1801.04381). Its images are cropped."""

from __future__ import annotations

from typing import Final

from maskq_worker.model.families.family import Family

# Convolutions only: any size will do.
MOBILENET_V2: Final = Family("mobilenet_v2", "MobileNetV2ForSemanticSegmentation", stride=32)
