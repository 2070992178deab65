"""The settings of DPT's image processor, if they ask for a resize to one square and nothing unusual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

LEVELS: Final = 256  # of a channel of 8 bits
# transformers' own defaults, for settings that a file omits or sets to null.
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
# Settings without effect on an RGB image that is resized and not padded.
_IGNORED: Final = frozenset(
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
class PlainSettings:
    """A resize to one square, then x * factor, then (x - mean) / std."""

    side: int  # px
    resample: int  # one of Pillow's filters
    factor: float | None  # None: levels stay 0..255
    mean: tuple[float, ...] | None  # of red, green and blue; None: nothing is subtracted
    std: tuple[float, ...] | None  # of red, green and blue; None: nothing is divided

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> PlainSettings | None:
        """Read the settings of preprocessor_config.json; None: they ask for more, or are invalid."""
        given = {key: value for key, value in settings.items() if value is not None}
        wanted = {**DEFAULTS, **given}
        if not given.keys() <= DEFAULTS.keys() | _IGNORED or not _is_plain(wanted):
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
        """The network's value of each 8-bit level: (768,) float32, of red, then green, then blue.

        Rounded where transformers rounds: after the rescaling in float64, then after each step.
        """
        ramp = np.arange(LEVELS, dtype=np.float64)
        if self.factor is not None:
            ramp = ramp * self.factor
        values = ramp.astype(np.float32)[None].repeat(3, axis=0)
        if self.mean is not None:
            values = values - np.array(self.mean, dtype=np.float32)[:, None]
        if self.std is not None:
            values = values / np.array(self.std, dtype=np.float32)[:, None]
        return torch.from_numpy(values.ravel())


def _is_plain(wanted: Mapping[str, Any]) -> bool:
    """Whether the values of the keys of DEFAULTS are valid and plain. transformers judges the rest."""
    multiple, resample = wanted["ensure_multiple_of"], wanted["resample"]
    return (
        (wanted["do_resize"], wanted["keep_aspect_ratio"], wanted["do_pad"]) == (True, False, False)
        and (type(wanted["do_rescale"]), type(wanted["do_normalize"])) == (bool, bool)
        and (type(multiple) is int and multiple > 0)
        and _side(wanted["size"]) > 0
        and _side(wanted["size"]) % multiple == 0
        and (type(resample) is int and resample in list(Image.Resampling))
        and _is_number(wanted["rescale_factor"])
        and all(map(_is_three_numbers, (wanted["image_mean"], wanted["image_std"])))
        and 0 not in wanted["image_std"]
    )


def _side(size: Any) -> int:
    """The side of a square, px; 0 for anything else. Files of 2022 give a size as one number."""
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        height, width = size["height"], size["width"]
        size = height if height == width and type(width) is int else 0
    return size if type(size) is int else 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_three_numbers(values: Any) -> bool:
    return type(values) is list and len(values) == 3 and all(map(_is_number, values))
