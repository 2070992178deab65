"""From an image to what the network takes, by the settings of the checkpoint's own image processor.

In two steps, which together are transformers' PIL processor bit for bit: a resize and perhaps a crop,
in the threads of the jobs, and from 8 bits to normalised floats, on the model's device. In between an
image takes a quarter of the memory.

DPT's settings that ask for a square and no more are read here. Of any other transformers is asked, and
three small images show whether it does what we do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.checkpoint.folder import read_preprocessor
from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBES = ((64, 48), (48, 64), (150, 40))  # px: none is square, as photographs are not
_LEVELS = 256
_WHOLE: Final = 2**24  # px of a resized image, of which only a crop is resized where it has more
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


@dataclass(frozen=True, slots=True)
class Frame:
    """What the network is shown of an image that it sees whole."""

    size: tuple[int, int]  # (height, width) px that the network was trained on
    # (height, width) px before a crop, if the ratio is not kept.
    stretched: tuple[int, int] | None = None
    shortest_edge: int | None = None  # px before a crop, if the ratio is kept
    longest_edge: int | None = None  # px at most
    cropped: bool = False  # to `size`, from the middle; a smaller image is surrounded by black

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) px of an image before it is cropped."""
        if self.shortest_edge is None:
            height, width = self.stretched or self.size
            return width, height
        from transformers.image_transforms import (
            get_resize_output_image_size,
            get_size_with_aspect_ratio,
        )

        if self.longest_edge is not None:
            high, wide = get_size_with_aspect_ratio(
                (height, width), self.shortest_edge, self.longest_edge
            )
        else:
            nothing = np.broadcast_to(np.uint8(0), (3, height, width))
            high, wide = get_resize_output_image_size(
                nothing,
                self.shortest_edge,
                default_to_square=False,
                input_data_format="channels_first",
            )
        return max(1, wide), max(1, high)


@dataclass(frozen=True, slots=True)
class Place:
    """A rectangle of an image, px; it may reach beyond it."""

    top: int
    left: int
    height: int
    width: int


class Preprocessor:
    """Any number of threads may share one."""

    def __init__(
        self,
        frame: Frame,
        resample: int,
        levels: torch.Tensor,
        processor: Callable[[], Any],
        *,
        by_transformers: bool = False,
        bgr: bool = False,
        reduces_labels: bool = False,
    ) -> None:
        """levels: as of `Plain.levels`, in the network's order of channels; processor: makes
        transformers' own, if somebody asks for it; by_transformers: whether that was asked already;
        bgr: whether the network takes blue first."""
        self.frame = frame
        self.by_transformers = by_transformers
        self._resample = resample
        self._levels = levels
        self._processor = processor
        self._bgr = bgr
        self._reduces_labels = reduces_labels

    @classmethod
    def from_checkpoint(
        cls, directory: Path, *, squares: bool = True, usual: str = "DPTImageProcessor"
    ) -> Preprocessor:
        """squares: whether the network takes nothing else; usual: the image processor of a file that
        names none ('': transformers finds it by config.json).

        Raises ModelError for settings under which there is no sound mask.
        """
        path, settings = read_preprocessor(directory)
        # Checkpoints of 2022 name only the class of then, DPTFeatureExtractor.
        kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        if not str(kind or usual).startswith("DPT"):
            return cls._probed(path, _auto(path, directory), squares)
        plain = Plain.read(settings)
        if plain is None:
            return cls._probed(path, _transformers(path, settings), squares)
        return cls(
            Frame((plain.side, plain.side)),
            plain.resample,
            plain.levels(),
            partial(_transformers, path, settings),
            reduces_labels=settings.get("do_reduce_labels") is True,
        )

    @classmethod
    def _probed(cls, path: Path, processor: Any, squares: bool) -> Preprocessor:
        """From transformers' own, where it does what we do."""
        images = [_probe(size) for size in _PROBES]
        try:
            expected = [_reference(processor, image) for image in images]
        except Exception as error:  # whatever settings that contradict each other lead to
            raise ModelError(f"{path} is not usable: {error}") from error
        shapes = {pixels.shape for pixels in expected}
        side = min(shape[-1] for shape in shapes)
        if squares and shapes != {(3, side, side)}:
            raise ModelError(
                f"{path} resizes images to {_sizes(shapes)}, but "
                "DPT's segmentation head takes squares of one size only: set do_resize, a square "
                "size and keep_aspect_ratio false"
            )
        frame = _frame(processor)
        bgr = bool(getattr(processor, "do_flip_channel_order", None))
        if frame is not None:
            preprocessor = cls(
                frame,
                processor.resample,
                _levels(processor),
                lambda: processor,
                by_transformers=True,
                bgr=bgr,
                reduces_labels=bool(getattr(processor, "do_reduce_labels", None)),
            )
            ours = [
                preprocessor.normalised(torch.from_numpy(preprocessor.whole(image)[0])).numpy()
                for image in images
            ]
        if frame is None or not all(map(np.array_equal, ours, expected)):
            raise ModelError(
                f"{path} asks for more than resize, crop, rescale and normalise (padding? no resize?), "
                "which maskq does not do"
            )
        return preprocessor

    @property
    def side(self) -> int:
        """px of the square that DPT takes."""
        return self.frame.size[0]

    @property
    def description(self) -> dict[str, Any]:
        """As it stands in results; mean and std are of red, green and blue scaled to 0..1."""
        low, high = self._levels.double().view(3, _LEVELS)[:, [0, -1]].T
        mean, std = (-low / (high - low)).tolist(), (1 / (high - low)).tolist()
        if self._bgr:
            mean, std = mean[::-1], std[::-1]
        height, width = self.frame.size
        description: dict[str, Any] = {
            "input_size": width if height == width else [width, height],
            "resample": Image.Resampling(self._resample).name.lower(),
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
        }
        if self.frame.shortest_edge is not None:
            description["shortest_edge"] = self.frame.shortest_edge
        if self.frame.longest_edge is not None:
            description["longest_edge"] = self.frame.longest_edge
        if self.frame.cropped:
            description["cropped"] = True
        if self._bgr:
            description["channels"] = "bgr"
        if self._reduces_labels:  # class 0 is the annotations' 1: for whoever compares the two
            description["do_reduce_labels"] = True
        return description

    @cached_property
    def processor(self) -> Any:
        """transformers' own, which takes seconds to import."""
        return self._processor()

    def __call__(
        self, image: Image.Image, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """image: RGB, any size. Returns (height, width, 3), all of it resized; size: (width, height)
        px, default: what the network was trained on.

        Pillow resizes the image itself; transformers would first copy it to an array, move its
        axes and build an image again, at five times the cost for 12 megapixels.
        """
        height, width = self.frame.size
        return self._array(image.resize(size or (width, height), self._resample))

    def whole(self, image: Image.Image) -> tuple[NDArray[np.uint8], Place | None]:
        """What the processor shows the network of an image, and where that lies in it (None: it is all
        of it)."""
        wide, high = self.frame.resized(*image.size)
        if not self.frame.cropped:
            return self(image, (wide, high)), None
        height, width = self.frame.size
        # As transformers: a smaller image lies in the middle of a larger one, black where it is not.
        top = (high - height) // 2 if high >= height else -math.ceil((height - high) / 2)
        left = (wide - width) // 2 if wide >= width else -math.ceil((width - wide) / 2)
        box = (left, top, left + width, top + height)
        down, across = image.height / high, image.width / wide
        if wide * high <= _WHOLE:
            cropped = image.resize((wide, high), self._resample).crop(box)
        else:
            inside = (max(0, left), max(0, top), min(wide, box[2]), min(high, box[3]))
            seen = image.resize(
                (inside[2] - inside[0], inside[3] - inside[1]),
                self._resample,
                (inside[0] * across, inside[1] * down, inside[2] * across, inside[3] * down),
            )
            cropped = Image.new("RGB", (width, height))
            cropped.paste(seen, (inside[0] - left, inside[1] - top))
        y, x = round(top * down), round(left * across)
        return self._array(cropped), Place(
            y,
            x,
            max(1, round((top + height) * down) - y),
            max(1, round((left + width) * across) - x),
        )

    def _array(self, image: Image.Image) -> NDArray[np.uint8]:
        pixels = np.array(image)
        return np.ascontiguousarray(pixels[..., ::-1]) if self._bgr else pixels

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
    only = {"do_resize": False}
    if getattr(processor, "do_center_crop", None):
        only["do_center_crop"] = False
    return torch.from_numpy(_reference(processor, Image.fromarray(ramp), **only).ravel())


def _frame(processor: Any) -> Frame | None:
    """What transformers' own processor shows of an image; None: something that we do not know."""
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


def _auto(path: Path, directory: Path) -> Any:
    """The image processor that transformers finds for a checkpoint, on Pillow."""
    from transformers import AutoImageProcessor

    from maskq_worker.model.checkpoint.loading import quiet_transformers

    try:
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(
                directory, backend="pil", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # whatever the classes behind it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # Where it knows no such class, transformers lists all that it knows.
        reason = reason.split(". Should have a")[0]
        raise ModelError(f"{path} is not usable: {reason}") from error


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
