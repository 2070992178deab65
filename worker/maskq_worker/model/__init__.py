"""The model: from an RGB image to class scores and a mask. Knows no Celery, Redis or S3.

`load_segmenter` imports torch. Importing this package, or `model.checkpoint.labels`, does not.
"""

from maskq_worker.model.errors import ModelError
from maskq_worker.model.inputs_and_outputs import ModelInfo, ModelInput, ModelOutput
from maskq_worker.model.loader import goes_to_gpu, load_segmenter, warm_up
from maskq_worker.model.pending import PendingOutput
from maskq_worker.model.segmenter import Segmenter
from maskq_worker.model.self_test import run_self_test

__all__ = [
    "ModelError",
    "ModelInfo",
    "ModelInput",
    "ModelOutput",
    "PendingOutput",
    "Segmenter",
    "goes_to_gpu",
    "load_segmenter",
    "run_self_test",
    "warm_up",
]
