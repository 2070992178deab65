"""How scores are computed: the reference path of transformers, and the same result for less.

`transformers` is the reference, always selectable. `cpu` and `cuda` are the family's network
(families/) on that device: our own (network/), or transformers' where we have none; masks in bounded
memory. `auto` is the one whose device is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from maskq_worker.model.checkpoint.loading import ScoresOf
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import Family
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.masks.bounded import mask_dtype, mask_with_confidence, upsampled_argmax
from maskq_worker.model.network import Network
from maskq_worker.model.inputs_and_outputs import ModelOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

REFERENCE: Final = "transformers"
_CLASSES = 32  # at once in `plain_mask`


class TransformersBackend:
    """transformers as it comes: its network, its post-processing."""

    supports_rectangles = (
        False  # whether the network takes what is not a square; DPT's head scrambles it
    )
    # Whether what `answer` returns may be called in several threads at once, beside a forward.
    thread_safe_masks = False  # a large one takes gigabytes

    def __init__(
        self,
        network: Any,
        preprocessor: Preprocessor,
        *,
        name: str = REFERENCE,
        device: torch.device,
        dtype: torch.dtype,
        supports_rectangles: bool | None = None,
    ) -> None:
        """rectangles: whether the network takes them; default: the class' own."""
        if supports_rectangles is not None:
            self.supports_rectangles = supports_rectangles
        self.name = name
        self.device = device
        self.dtype = dtype
        self._network = network
        self._preprocessor = preprocessor

    def warm_up(self, max_batch_size: int) -> None:
        """Whatever is done once, in the thread that will call `forward`."""

    @torch.inference_mode()
    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        """pixels: N times (H, W, 3). Returns (N, C, h, w) float32 on the device."""
        stacked = torch.from_numpy(np.stack(list(pixels))).to(self.device)
        batch = self._preprocessor.normalised(stacked)
        scores = self._scores(batch.to(self.dtype)).float()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return scores

    def answer(
        self,
        scores: torch.Tensor,
        size: tuple[int, int],
        *,
        confidence: bool = False,
        logits: bool = False,
    ) -> Callable[[], ModelOutput | None]:
        """scores: (C, h, w) float32; size: (H, W) px; confidence, logits: whether they are wanted too.

        What is returned gives the answer, in any thread; None: there are scores that are no numbers.
        Masks for a GPU begin now and are waited for then (model/cuda/); here they are made then.
        """

        def compute() -> ModelOutput | None:
            if not finite(scores):
                return None
            sure = None
            if confidence:
                mask, sure = mask_with_confidence(scores, size)
            else:
                mask = self.mask(scores, size)
            wanted = scores.cpu().numpy().copy() if logits else None
            return ModelOutput(mask, sure, wanted)

        return compute

    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """scores: (C, h, w) float32; size: (H, W) px. Returns (H, W), uint8 up to 256 classes."""
        return reference_mask(self._preprocessor.processor, scores, size)

    def _scores(self, batch: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self._network(batch)
        return scores


class NativeBackend(TransformersBackend):
    """Another network over the same weights, mostly our own; masks in bounded memory."""

    supports_rectangles = True
    thread_safe_masks = True

    @torch.inference_mode()
    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """As the reference's, in 32 MB beside the scores."""
        return upsampled_argmax(scores, size)


def load_backend(
    directory: Path,
    preprocessor: Preprocessor,
    *,
    backend: str,
    device: str,
    dtype: str,
    family: Family = DPT,
) -> TransformersBackend:
    """backend: auto | transformers | cpu | cuda; device: auto | cpu | cuda; dtype: auto or torch's.

    `auto` dtype is float32, and for our own network on CUDA half precision. Raises ModelError.
    """
    place = choose_device(device, backend)
    if place.type == "cuda":
        from maskq_worker.model.cuda.precision import exact_float32

        exact_float32()
    plain = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    supports_rectangles = not family.squares  # of transformers' network
    if backend == REFERENCE:
        network = ScoresOf(family.reference(directory, plain)).to(place)
        return TransformersBackend(
            network,
            preprocessor,
            device=place,
            dtype=plain,
            supports_rectangles=supports_rectangles,
        )
    ours = family.network(directory, place)
    if not isinstance(ours, Network):
        return NativeBackend(
            ours.to(place, plain),
            preprocessor,
            name=REFERENCE,
            device=place,
            dtype=plain,
            supports_rectangles=supports_rectangles,
        )
    if place.type == "cuda":
        from maskq_worker.model.cuda import load_cuda
        from maskq_worker.model.cuda.faults import NO_KERNELS

        try:
            return load_cuda(ours, preprocessor, device=place, dtype=dtype)
        except RuntimeError as error:
            if NO_KERNELS not in str(error):
                raise
            raise ModelError(
                f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(place)}: "
                "install one that was built for this card, or set MASKQ_DEVICE=cpu"
            ) from error
    ours.to(plain).head.classifier.float()
    return NativeBackend(ours, preprocessor, name=place.type, device=place, dtype=plain)


def choose_device(device: str, backend: str = "auto") -> torch.device:
    """auto: the backend's, else the first visible GPU, else the CPU. A GPU that is asked for is never
    replaced."""
    if backend in ("cpu", "cuda"):
        if device not in ("auto", backend):
            raise ModelError(
                f"MASKQ_BACKEND is {backend} and MASKQ_DEVICE is {device}: set only one of them"
            )
        device = backend
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise ModelError(
            f"MASKQ_DEVICE is {device!r}; expected auto, cpu or cuda (CUDA_VISIBLE_DEVICES picks "
            "the GPU)"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            "MASKQ_DEVICE is cuda, but torch finds no GPU here: check the driver, "
            "CUDA_VISIBLE_DEVICES and that torch was built for CUDA, or set MASKQ_DEVICE=cpu"
        )
    return torch.device("cuda", 0)


def finite(scores: torch.Tensor) -> bool:
    """Whether all are numbers; scores: (C, h, w)."""
    # As our network leaves them: in order of memory it takes a 20th.
    by_place = scores.movedim(0, -1)
    low, high = (by_place if by_place.is_contiguous() else scores).aminmax()  # NaN passes through
    return math.isfinite(low.item()) and math.isfinite(high.item())


def plain_mask(scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """What transformers' own mask is, without transformers: scores (C, h, w), size (H, W) px.

    Some classes at a time: half the time of all at once, and a fifth of the memory with 150.
    """
    with torch.inference_mode():
        best = torch.full(size, -torch.inf, device=scores.device)
        ids = torch.zeros(size, dtype=torch.int64, device=scores.device)
        for first in range(0, len(scores), _CLASSES):
            some = scores[None, first : first + _CLASSES].contiguous()
            large = functional.interpolate(some, size=size, mode="bilinear", align_corners=False)
            highest, index = large[0].max(dim=0)
            ids = torch.where(highest > best, index + first, ids)  # of equals the first class
            best = torch.maximum(best, highest)
    answer: NDArray[Any] = ids.cpu().numpy()
    return answer.astype(mask_dtype(len(scores)))


def reference_mask(processor: Any, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """transformers' own mask of one image: scores (C, h, w), size (H, W) px.

    Of a processor that makes none (ViT's, say, beside a UPerNet) it is what all others make.
    """
    if not hasattr(processor, "post_process_semantic_segmentation"):
        return plain_mask(scores, size)
    from transformers.modeling_outputs import SemanticSegmenterOutput

    with torch.inference_mode():
        # One image at a time: for a batch, transformers keeps the scores of all until the end.
        outputs = SemanticSegmenterOutput(logits=scores[None])
        mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
    ids: NDArray[Any] = mask.cpu().numpy()
    return ids.astype(mask_dtype(len(scores)))
