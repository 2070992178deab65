"""Which networks a worker loads, by MASKQ_PRECISION and MASKQ_DTYPE."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from maskq_worker.model.backend import name_of
from maskq_worker.model.errors import ModelError
from maskq_worker.model.openvino import cache
from maskq_worker.model.openvino.load import load_openvino
from maskq_worker.model.precision import store
from maskq_worker.model.precision.backends import load_backend
from maskq_worker.model.precision.devices import choose_device
from maskq_worker.model.precision.processor import half_precision_units
from maskq_worker.model.precision.rating import UNRATED, Rating

if TYPE_CHECKING:
    import torch

    from maskq_worker.model.backend import Backend
    from maskq_worker.model.checkpoint.folder import Checkpoint
    from maskq_worker.model.families.family import Family
    from maskq_worker.model.preprocess.preprocessor import Preprocessor
    from maskq_worker.settings import WorkerSettings

_HALF: Final = ("bfloat16", "float16")  # the preferred one first
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Networks:
    """What a segmenter computes with."""

    backend: Backend
    rating: Rating
    precision: str | None  # as of `ModelInfo`


@dataclass(frozen=True, slots=True)
class _Measured:
    """A network, and its measured bound of uncertain pixels."""

    backend: Backend
    uncertain_below: float | None  # None: not measured
    missed_pixels: int | None  # as of `Measured`
    again: str  # the command that measures it


def load_networks(
    settings: WorkerSettings, checkpoint: Checkpoint, preprocessor: Preprocessor, family: Family
) -> Networks:
    """Load the network of the settings, and the float32 one beside it if MASKQ_PRECISION is certified.

    Raises:
        ModelError: for settings that contradict each other, and for a network whose figures are missing
            or below their threshold; with what to do.
    """
    return _Loading(settings, checkpoint, preprocessor, family).networks()


@dataclass(frozen=True, slots=True)
class _Loading:
    settings: WorkerSettings
    checkpoint: Checkpoint
    preprocessor: Preprocessor
    family: Family

    def networks(self) -> Networks:
        precision, dtype = self.settings.precision, self.settings.dtype
        if precision is None:
            backend = self._measured(dtype).backend
            exact = name_of(backend.dtype) == "float32"
            if exact and dtype == "auto":
                self._tell_of_bfloat16(backend)
            return Networks(backend, UNRATED, "exact" if exact else None)
        if precision == "exact":
            if dtype not in ("auto", "float32"):
                raise ModelError(
                    f"MASKQ_PRECISION is exact, which computes in float32, and MASKQ_DTYPE is {dtype}: "
                    "set only one of them"
                )
            return Networks(self._loaded("float32"), UNRATED, precision)
        return self._rated(precision)

    def _rated(self, precision: str) -> Networks:
        """fast or certified."""
        settings = self.settings
        if settings.dtype == "float32":
            raise ModelError(
                f"MASKQ_PRECISION is {precision}, which computes in half precision or 8 bits, and "
                "MASKQ_DTYPE is float32: set only one of them"
            )
        if settings.backend == "transformers":
            raise ModelError(
                f"MASKQ_PRECISION is {precision}, which needs maskq's own masks, and MASKQ_BACKEND is "
                "transformers: set MASKQ_BACKEND=auto"
            )
        found = self._measured(settings.dtype if settings.dtype != "auto" else self._fast_dtype())
        if found.uncertain_below is None:
            raise ModelError(
                f"MASKQ_PRECISION is {precision}, but an older version measured {self.checkpoint.name} "
                f"and no bound of uncertain pixels: run {found.again} again"
            )
        if found.missed_pixels:
            raise ModelError(
                f"MASKQ_PRECISION is {precision}, but {found.missed_pixels} pixels of the images that "
                f"checked {self.checkpoint.name} differ from float32's above the bound of uncertain "
                f"pixels: run {found.again} with more images like those of your jobs"
            )
        exact = self._loaded("float32") if precision == "certified" else None
        rating = Rating(found.uncertain_below, exact, settings.max_uncertain_share)
        return Networks(found.backend, rating, precision)

    def _fast_dtype(self) -> str:
        """The type for MASKQ_DTYPE=auto. On a GPU `load_backend` chooses among those it has."""
        device = choose_device(self.settings.device, self.settings.backend)
        if device.type == "cuda":
            return "auto"
        for dtype in _HALF:
            record = store.find(self.checkpoint, dtype, device)
            if record is not None and record.passes:
                return dtype
        if cache.is_built(self.checkpoint):
            return "int8"
        raise ModelError(
            f"MASKQ_PRECISION is {self.settings.precision}, but {self.checkpoint.name} was not "
            f"measured on this CPU: run {store.command(self.checkpoint, 'bfloat16')} or "
            f"{cache.command(self.checkpoint)}, or set MASKQ_PRECISION=exact"
        )

    def _measured(self, dtype: str) -> _Measured:
        """A network within its gate. Of float32 there are no figures, and of half precision on a GPU
        only if MASKQ_PRECISION is set."""
        if dtype == "int8":
            return self._in_8_bits()
        settings = self.settings
        device = choose_device(settings.device, settings.backend)
        needs_figures = settings.precision is not None or device.type == "cpu"
        if needs_figures and dtype in _HALF:  # before the network is loaded, which takes longer
            self._figures(dtype, device)
        backend = self._loaded(dtype)
        computed = name_of(backend.dtype)  # a GPU chooses for auto, and where it lacks a type
        again = store.command(self.checkpoint, computed)
        if not needs_figures or (settings.precision is None and computed not in _HALF):
            return _Measured(backend, None, None, again)
        record = self._figures(computed, device)
        if record.backend != backend.name:
            raise ModelError(
                f"{self.checkpoint.name} was measured with backend {record.backend}, and "
                f"{backend.name} computes here: run {again} with the same MASKQ_BACKEND"
            )
        _log.info("%s %s", self.checkpoint.name, record.figures)
        if device.type == "cpu" and not half_precision_units(computed):
            _log.warning("this CPU has no instructions for %s: it is slower than float32", computed)
        measured = record.measured
        return _Measured(backend, measured.uncertain_below, measured.missed_pixels, again)

    def _figures(self, dtype: str, device: torch.device) -> store.Record:
        settings = self.settings
        said = (
            f"MASKQ_PRECISION is {settings.precision}"
            if settings.dtype == "auto"
            else f"MASKQ_DTYPE is {settings.dtype}"
        )
        if dtype not in _HALF:
            raise ModelError(f"{said}, but {device} computes in {dtype}: set MASKQ_PRECISION=exact")
        return store.load(self.checkpoint, dtype, device, setting=said)

    def _loaded(self, dtype: str) -> Backend:
        settings = self.settings
        on_cpu = settings.dtype == "int8"  # also the float32 network beside it
        return load_backend(
            self.checkpoint.directory,
            self.preprocessor,
            self.family,
            backend=settings.backend,
            device="cpu" if on_cpu else settings.device,
            dtype=dtype,
        )

    def _in_8_bits(self) -> _Measured:
        settings = self.settings
        if self.family.model_type != "dpt":
            raise ModelError(
                f"MASKQ_DTYPE is int8, which {self.family.architecture} does not support: set it to "
                "float32"
            )
        if settings.backend not in ("auto", "cpu") or settings.device not in ("auto", "cpu"):
            raise ModelError(
                f"MASKQ_DTYPE is int8, which is for CPUs; MASKQ_BACKEND is {settings.backend} and "
                f"MASKQ_DEVICE {settings.device}: set one or the other to auto"
            )
        backend, record = load_openvino(self.checkpoint, self.preprocessor)
        return _Measured(
            backend, record.uncertain_below, record.missed_pixels, cache.command(self.checkpoint)
        )

    def _tell_of_bfloat16(self, backend: Backend) -> None:
        units = half_precision_units("bfloat16") if backend.device.type == "cpu" else None
        if units:
            _log.info(
                "this CPU multiplies bfloat16 (%s), in which a large network takes about 0.4 of the "
                "time: %s measures how its masks differ from float32's, and MASKQ_DTYPE=bfloat16 or "
                "MASKQ_PRECISION=fast then uses it",
                units,
                store.command(self.checkpoint, "bfloat16"),
            )
