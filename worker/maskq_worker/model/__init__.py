"""The model: from an RGB image to class scores and a mask. Knows no Celery, Redis or S3.

`load_segmenter` imports torch. Importing this package, or `model.checkpoint.labels`, does not.
"""

from maskq_worker.model.errors import ModelError
from maskq_worker.model.inputs_and_outputs import ModelOutput
from maskq_worker.model.segmenter import (
    ModelInfo,
    ModelInput,
    PendingOutput,
    Segmenter,
    goes_to_gpu,
    load_segmenter,
)

__all__ = [
    "ModelError",
    "ModelInfo",
    "ModelInput",
    "ModelOutput",
    "PendingOutput",
    "Segmenter",
    "goes_to_gpu",
    "load_segmenter",
]
