"""From an image to what the network takes, by the checkpoint's own preprocessor_config.json.

In two steps, which together are transformers' PIL processor bit for bit: a resize, in the threads of
the jobs, and from 8 bits to normalised floats, on the model's device. In between an image takes a
quarter of the memory.

A file that asks for no more than that is read here. Of any other transformers is asked, and three small
images show whether it asks for more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBES = ((64, 48), (48, 64), (150, 40))  # px: none is square, as photographs are not
_LEVELS = 256
# transformers' own defaults, for what a file leaves out or sets to null.
DEFAULTS: Final[Mapping[str, Any]] = {
    "do_resize": True,
    "size": {"height": 384, "width": 384},
    "resample": int(Image.Resampling.BICUBIC),
    "keep_aspect_ratio": False,
    "ensure_multiple_of": 1,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_pad": False,
}
# What makes no difference to an RGB image that is resized and not padded.
_IDLE: Final = frozenset(
    {
        "_valid_processor_keys",
        "do_convert_rgb",
        "do_reduce_labels",
        "feature_extractor_type",
        "image_processor_type",
        "processor_class",
        "size_divisor",
    }
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A resize to one square, then x * factor, then (x - mean) / std."""

    side: int  # px
    resample: int  # one of Pillow's filters
    factor: float | None  # None: levels stay 0..255
    mean: tuple[float, ...] | None  # of red, green and blue; None: nothing is subtracted or divided
    std: tuple[float, ...] | None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Plain | None:
        """settings: of preprocessor_config.json. None: it asks for more, or for what makes no sense."""
        given = {key: value for key, value in settings.items() if value is not None}
        wanted = {**DEFAULTS, **given}
        if not given.keys() <= DEFAULTS.keys() | _IDLE or not _sound(wanted):
            return None
        rescaled, normalised = wanted["do_rescale"], wanted["do_normalize"]
        return cls(
            side=_side(wanted["size"]),
            resample=wanted["resample"],
            factor=wanted["rescale_factor"] if rescaled else None,
            mean=tuple(wanted["image_mean"]) if normalised else None,
            std=tuple(wanted["image_std"]) if normalised else None,
        )

    def levels(self) -> torch.Tensor:
        """(768,) float32: of each level of red, then of green, then of blue.

        Rounded where transformers rounds: after the rescaling in float64, then after each step.
        """
        ramp = np.arange(_LEVELS, dtype=np.float64)
        if self.factor is not None:
            ramp = ramp * self.factor
        values = ramp.astype(np.float32)[None].repeat(3, axis=0)
        if self.mean is not None:
            values = values - np.array(self.mean, dtype=np.float32)[:, None]
        if self.std is not None:
            values = values / np.array(self.std, dtype=np.float32)[:, None]
        return torch.from_numpy(values.ravel())


class Preprocessor:
    """Any number of threads may share one."""

    def __init__(
        self, side: int, resample: int, levels: torch.Tensor, processor: Callable[[], Any]
    ) -> None:
        """levels: as of `Plain.levels`; processor: makes transformers' own, if somebody asks for it."""
        self.side = side  # px: the network was trained on (3, side, side)
        self._resample = resample
        self._levels = levels
        self._processor = processor

    @classmethod
    def from_checkpoint(cls, directory: Path) -> Preprocessor:
        """Raises ModelError for settings under which DPT's segmentation head gives no sound mask."""
        path = directory / "preprocessor_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        # Checkpoints of 2022 name only the class of then, DPTFeatureExtractor.
        kind = (
            settings.get("image_processor_type") or settings.get("feature_extractor_type") or "DPT"
        )
        if not kind.startswith("DPT"):
            raise ModelError(
                f"{path} is for {kind}; maskq serves DPT with DPT's own image processor"
            )
        plain = Plain.read(settings)
        if plain is None:
            return cls._probed(path, _transformers(path, settings))
        processor = partial(_transformers, path, settings)
        return cls(plain.side, plain.resample, plain.levels(), processor)

    @classmethod
    def _probed(cls, path: Path, processor: Any) -> Preprocessor:
        """From transformers' own, where it does what we do."""
        images = [_probe(size) for size in _PROBES]
        try:
            expected = [_reference(processor, image) for image in images]
        except Exception as error:  # whatever settings that contradict each other lead to
            raise ModelError(f"{path} is not usable: {error}") from error
        shapes = {pixels.shape for pixels in expected}
        side = min(shape[-1] for shape in shapes)
        if shapes != {(3, side, side)}:
            raise ModelError(
                f"{path} resizes images to {_sizes(shapes)}, but "
                "DPT's segmentation head takes squares of one size only: set do_resize, a square "
                "size and keep_aspect_ratio false"
            )
        preprocessor = cls(side, processor.resample, _levels(processor), lambda: processor)
        ours = [preprocessor.normalised(torch.from_numpy(preprocessor(image))) for image in images]
        if not all(np.array_equal(*pair) for pair in zip(ours, expected, strict=True)):
            raise ModelError(
                f"{path} asks for more than resize, rescale and normalise (padding?), which maskq "
                "does not do"
            )
        return preprocessor

    @property
    def description(self) -> dict[str, Any]:
        """As it stands in results; mean and std are of red, green and blue scaled to 0..1."""
        low, high = self._levels.double().view(3, _LEVELS)[:, [0, -1]].T
        return {
            "input_size": self.side,
            "resample": Image.Resampling(self._resample).name.lower(),
            "mean": [round(value, 6) for value in (-low / (high - low)).tolist()],
            "std": [round(value, 6) for value in (1 / (high - low)).tolist()],
        }

    @cached_property
    def processor(self) -> Any:
        """transformers' own, which takes seconds to import."""
        return self._processor()

    def __call__(
        self, image: Image.Image, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """image: RGB, any size. Returns (height, width, 3); size: (width, height) px, left out: the
        network's square.

        Pillow resizes the image itself; transformers would first copy it to an array, move its
        axes and build an image again, at five times the cost for 12 megapixels.
        """
        return np.array(image.resize(size or (self.side, self.side), self._resample))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (…, H, W, 3) uint8. Returns (…, 3, H, W) float32 on the same device, in memory still
        by place (`channels_last`).

        Each level of each channel has one value, transformers' own: so it is exact.
        """
        levels = self._levels.to(pixels.device)
        offsets = torch.arange(0, 3 * _LEVELS, _LEVELS, dtype=torch.int32, device=pixels.device)
        values = levels.index_select(0, (pixels.int() + offsets).flatten())
        return values.view(pixels.shape).movedim(-1, -3)


def _sound(wanted: Mapping[str, Any]) -> bool:
    """Whether values of the keys of DEFAULTS are plain. transformers judges all others."""
    multiple, resample = wanted["ensure_multiple_of"], wanted["resample"]
    return (
        (wanted["do_resize"], wanted["keep_aspect_ratio"], wanted["do_pad"]) == (True, False, False)
        and (type(wanted["do_rescale"]), type(wanted["do_normalize"])) == (bool, bool)
        and (type(multiple) is int and multiple > 0)
        and _side(wanted["size"]) > 0
        and _side(wanted["size"]) % multiple == 0
        and (type(resample) is int and resample in list(Image.Resampling))
        and _number(wanted["rescale_factor"])
        and all(map(_three_numbers, (wanted["image_mean"], wanted["image_std"])))
        and 0 not in wanted["image_std"]
    )


def _side(size: Any) -> int:
    """px of a square; 0 for anything else. In files of 2022 a size is one number."""
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        height, width = size["height"], size["width"]
        size = height if height == width and type(width) is int else 0
    return size if type(size) is int else 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _three_numbers(values: Any) -> bool:
    return type(values) is list and len(values) == 3 and all(map(_number, values))


def _reference(processor: Any, image: Image.Image, **options: bool) -> NDArray[np.float32]:
    """transformers' own answer."""
    pixels = processor(images=image, return_tensors="np", **options)["pixel_values"][0]
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _levels(processor: Any) -> torch.Tensor:
    """As `Plain.levels`, by transformers itself."""
    ramp = np.arange(_LEVELS, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return torch.from_numpy(_reference(processor, Image.fromarray(ramp), do_resize=False).ravel())


def _transformers(path: Path, settings: dict[str, Any]) -> Any:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    try:
        return DPTImageProcessorPil.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} is not usable: {error}") from error


def _probe(size: tuple[int, int]) -> Image.Image:
    """A small image in which every pixel differs; size: (width, height) px."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x, y, x ^ y], axis=2).astype(np.uint8))


def _sizes(shapes: set[tuple[int, ...]]) -> str:
    return " or ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
