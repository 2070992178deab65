"""transformers' own image processors: load one, and read off what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.checkpoint.transformers_log import quiet_transformers
from maskq_worker.model.errors import ModelError
from maskq_worker.model.preprocess.frame import Frame
from maskq_worker.model.preprocess.settings import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_auto_processor(path: Path, directory: Path) -> Any:
    """The image processor that transformers finds for a checkpoint, on Pillow.

    path: of the settings, for the message. directory: of the checkpoint. Raises ModelError.
    """
    from transformers import AutoImageProcessor

    try:
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(
                directory, backend="pil", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the classes behind it raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # For an unknown class transformers lists all that it knows.
        reason = reason.split(". Should have a")[0]
        raise ModelError(f"{path} is not usable: {reason}") from error


def make_dpt_processor(path: Path, settings: dict[str, Any]) -> Any:
    """transformers' DPT processor. path: of the settings, for the message. Raises ModelError."""
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    try:
        return DPTImageProcessorPil.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} is not usable: {error}") from error


def processed(processor: Any, image: Image.Image, **options: bool) -> NDArray[np.float32]:
    """What transformers' processor makes of an RGB image: (3, h, w) float32."""
    pixels = processor(images=image, return_tensors="np", **options)["pixel_values"][0]
    return np.ascontiguousarray(pixels, dtype=np.float32)


def levels_of(processor: Any) -> torch.Tensor:
    """The values of all 8-bit levels, read off transformers' processor: as `PlainSettings.levels`."""
    ramp = np.arange(LEVELS, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    only = {"do_resize": False}
    if getattr(processor, "do_center_crop", None):
        only["do_center_crop"] = False
    return torch.from_numpy(processed(processor, Image.fromarray(ramp), **only).ravel())


def frame_of(processor: Any) -> Frame | None:
    """How transformers' processor resizes and crops; None: in a way that maskq does not support."""
    size = {key: value for key, value in dict(processor.size or {}).items() if value}
    cropped = bool(getattr(processor, "do_center_crop", None))
    crop = getattr(processor, "crop_size", None)
    if not processor.do_resize or (cropped and not (crop and crop.height and crop.width)):
        return None
    trained = (crop.height, crop.width) if cropped and crop else None
    if size.keys() == {"height", "width"}:
        stretched = (size["height"], size["width"])
        return Frame(trained or stretched, stretched, cropped=cropped and trained != stretched)
    if size.keys() <= {"shortest_edge", "longest_edge"} and "shortest_edge" in size:
        edge = size["shortest_edge"]
        return Frame(trained or (edge, edge), cropped=cropped, **size)
    return None
