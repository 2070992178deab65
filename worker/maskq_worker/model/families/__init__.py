"""Which checkpoints are served: one module for each family of networks. Imports no torch.

A family says which class of transformers its checkpoints hold, how that becomes the network that
computes scores, and which sizes of input the network takes. To add one, write a module and name it in
`FAMILIES`. A class of transformers' AutoModelForSemanticSegmentation that no module names is served by
transformers at its trained size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from maskq_worker.model.errors import ModelError
from maskq_worker.model.families.beit import BEIT, DATA2VEC
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.families.family import Family
from maskq_worker.model.families.mobilenet import MOBILENET_V2
from maskq_worker.model.families.mobilevit import MOBILEVIT, MOBILEVIT_V2
from maskq_worker.model.families.segformer import SEGFORMER
from maskq_worker.model.families.upernet import UPERNET

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES: Final[tuple[Family, ...]] = (
    DPT,
    SEGFORMER,
    UPERNET,
    BEIT,
    DATA2VEC,
    MOBILEVIT,
    MOBILEVIT_V2,
    MOBILENET_V2,
)
_BY_MODEL_TYPE: Final = {family.model_type: family for family in FAMILIES}
_BY_ARCHITECTURE: Final = {family.architecture: family for family in FAMILIES}


def family_of(config: Mapping[str, Any], directory: Path) -> Family:
    """The family of a checkpoint. config: of its config.json; directory: for the message.

    As transformers' Auto classes do, it goes by `model_type`; where `architectures` is there as well,
    it must name the class. Raises ModelError for what is not served.
    """
    model_type, named = config.get("model_type"), config.get("architectures") or []
    if isinstance(named, str):
        named = [named]
    if model_type is None:
        family = next((_BY_ARCHITECTURE[one] for one in named if one in _BY_ARCHITECTURE), None)
    else:
        family = _BY_MODEL_TYPE.get(model_type) or _of_transformers(model_type)
    if family is None or (named and family.architecture not in named):
        held = named[0] if named else model_type or "a network that config.json does not name"
        served = ", ".join(family.architecture for family in FAMILIES)
        raise ModelError(
            f"{directory} holds {held}; maskq serves networks for semantic segmentation: {served}"
        )
    return family


def _of_transformers(model_type: str) -> Family | None:
    """A family that only transformers knows."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as NAMES,
    )

    architecture = NAMES.get(model_type)
    return Family(model_type, architecture) if architecture else None
