"""The network on a GPU: what is queued there, and what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskq_worker.model.transformers_backend import TransformersBackend
from maskq_worker.model.cuda import masks
from maskq_worker.model.cuda.buckets import bucket_sizes
from maskq_worker.model.cuda.coarse import upsampled
from maskq_worker.model.cuda.graphs import Capture, CaptureCuda, Graphs, seconds_cuda
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.cuda.transfer import Download, Upload
from maskq_worker.model.inputs_and_outputs import ModelOutput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

_log = logging.getLogger(__name__)


class Cuda(TransformersBackend):
    """Our own network with CUDA graphs, copies beside the computing, and masks drawn on the device.

    `forward` and `answer` queue work and return; only what `answer` returns waits. All but that belong
    to the model's own thread.
    """

    supports_rectangles = True

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """network: of `coarse`, on the device and in its type already."""
        super().__init__(network, preprocessor, name=device.type, device=device, dtype=dtype)
        self._normalise = Normalise(preprocessor, device, dtype)
        self._upload, self._download = Upload(device), Download(device)
        self._draw = masks.load(device)
        self._graphs: Graphs | None = None

    @torch.inference_mode()
    def warm_up(self, max_batch_size: int) -> None:
        """Record the graphs. Before it every forward is eager."""
        if self.device.type == "cuda":
            self.capture(max_batch_size, CaptureCuda(), seconds_cuda)
            with suppress(RuntimeError):  # after a capture that was cut short, some versions refuse
                torch.cuda.empty_cache()  # what the forwards before each recording left

    @torch.inference_mode()
    def capture(
        self,
        max_batch_size: int,
        capture: Capture,
        seconds: Callable[[Callable[[], object]], float],
    ) -> None:
        """As `Graphs`; where no graph can be recorded forwards stay eager."""
        buckets, side = bucket_sizes(max_batch_size), self._preprocessor.side
        try:
            self._graphs = Graphs(
                self._compute, buckets, side, self.device, capture=capture, seconds=seconds
            )
        except RuntimeError as error:
            _log.warning("%s: forwards are started kernel by kernel", error)
            return
        times = ", ".join(f"{n}: {1e3 * s:.1f}" for n, s in sorted(self._graphs.seconds.items()))
        _log.info("CUDA graphs by batch size, in ms: %s", times)

    @torch.inference_mode()
    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        """pixels: N times (H, W, 3). Returns (N, C, h, w) float32 on the device, perhaps not yet
        computed: what is queued after it finds it complete."""
        with self._upload(pixels) as there:
            graphs = self._graphs
            if graphs is not None and graphs.takes(there):
                return upsampled(graphs(there))
            return upsampled(self._compute(there))

    @torch.inference_mode()
    def answer(
        self,
        scores: torch.Tensor,
        size: tuple[int, int],
        *,
        confidence: bool = False,
        logits: bool = False,
    ) -> Callable[[], ModelOutput | None]:
        """As the reference's. Returns at once; what it returns waits for the copies, in any thread."""
        drawn = self._draw(scores, size, confidence=confidence)
        wanted = [drawn.mask, drawn.unsound]
        if drawn.confidence is not None:
            wanted.append(drawn.confidence)
        if logits:
            wanted.append(scores.contiguous())
        arriving = self._download(*wanted)

        def wait() -> ModelOutput | None:
            mask, unsound, *rest = arriving()
            if unsound[0]:
                return None
            return ModelOutput(
                mask=mask,
                confidence=rest[0] if confidence else None,
                logits=rest[-1] if logits else None,
            )

        return wait

    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """As the reference's; waits for it. Raises ValueError for scores that are no numbers."""
        answer = self.answer(scores, size)()
        if answer is None:
            raise ValueError("there are scores that are no numbers")
        return answer.mask

    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (N, H, W, 3) uint8 on the device -> (N, C, h, w), to be upsampled."""
        scores: torch.Tensor = self._network(self._normalise(pixels))
        return scores
