"""Our own network on a GPU, with CUDA graphs, copies beside the computing, and masks on the GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskq_worker.model.backend import Backend
from maskq_worker.model.cuda.buckets import bucket_sizes
from maskq_worker.model.cuda.fused.operations import TorchOperations
from maskq_worker.model.cuda.graphs import Capture, CaptureCuda, Graphs, seconds_cuda
from maskq_worker.model.cuda.masks import load_masks
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.cuda.transfer import Download, PendingDownload, Upload
from maskq_worker.model.inputs_and_outputs import ModelOutput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PendingDeviceMask:
    """One image's mask, which the GPU computes and copies. It is a `PendingMask`."""

    download: PendingDownload  # mask, unsound, and as asked for: confidence, uncertain, scores
    confidence: bool  # whether the confidence is among them
    logits: bool  # whether the scores are among them
    uncertain: bool = False  # whether the uncertain pixels are among them

    def wait(self) -> ModelOutput | None:
        """Wait for the copies, in any thread. None: some scores are NaN or infinite."""
        mask, unsound, *rest = self.download.wait()
        if unsound[0]:
            return None
        return ModelOutput(
            mask=mask,
            confidence=rest[0] if self.confidence else None,
            logits=rest[-1] if self.logits else None,
            uncertain=rest[int(self.confidence)] if self.uncertain else None,
        )


class CudaBackend(Backend):
    """`forward` and `start_mask` queue work and return. They belong to the model's own thread."""

    supports_rectangles = True
    thread_safe_masks = False  # waiting is short here, so the thread that waits for batches does it

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        *,
        device: torch.device,
        dtype: torch.dtype,
        operations: TorchOperations | None = None,
    ) -> None:
        """
        Args:
            network: of `coarse`, or a `FusedNetwork`; on the device and in `dtype` already.
            operations: for the last upsampling; None: torch's.
        """
        self.name = device.type
        self.device = device
        self.dtype = dtype
        self.network = network
        self._side = preprocessor.side
        self._normalise = Normalise(preprocessor, device, dtype)
        self._upload, self._download = Upload(device), Download(device)
        self._masks = load_masks(device)
        self._operations = operations or TorchOperations()
        self._graphs: Graphs | None = None

    @torch.inference_mode()
    def warm_up(self, max_batch_size: int) -> None:
        """Record the graphs. Before it every forward is eager."""
        if self.device.type == "cuda":
            self.capture(max_batch_size, CaptureCuda(), seconds_cuda)
            with suppress(RuntimeError):  # after a capture that was cut short, some versions refuse
                torch.cuda.empty_cache()  # the memory of the forwards before each recording

    @torch.inference_mode()
    def capture(
        self,
        max_batch_size: int,
        capture: Capture,
        seconds: Callable[[Callable[[], object]], float],
    ) -> None:
        """Record the graphs as `Graphs` does. If none can be recorded, forwards stay eager."""
        buckets = bucket_sizes(max_batch_size)
        try:
            self._graphs = Graphs(
                self.compute, buckets, self._side, self.device, capture=capture, seconds=seconds
            )
        except RuntimeError as error:
            _log.warning("%s: forwards are started kernel by kernel", error)
            return
        times = ", ".join(f"{n}: {1e3 * s:.1f}" for n, s in sorted(self._graphs.seconds.items()))
        _log.info("CUDA graphs by batch size, in ms: %s", times)

    @property
    def graphs(self) -> Graphs | None:
        """The recorded graphs; None: forwards are eager."""
        return self._graphs

    @torch.inference_mode()
    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        return self._scores(pixels, self._graphs)

    @torch.inference_mode()
    def forward_eager(
        self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
    ) -> torch.Tensor:
        """As `forward`, without graphs."""
        return self._scores(pixels, None)

    @torch.inference_mode()
    def start_mask(
        self,
        scores: torch.Tensor,
        size: tuple[int, int],
        *,
        confidence: bool = False,
        logits: bool = False,
        uncertain_below: float | None = None,
    ) -> PendingDeviceMask:
        drawn = self._masks(scores, size, confidence=confidence, uncertain_below=uncertain_below)
        wanted = [drawn.mask, drawn.unsound]
        if drawn.confidence is not None:
            wanted.append(drawn.confidence)
        if drawn.uncertain is not None:
            wanted.append(drawn.uncertain)
        if logits:
            wanted.append(scores.contiguous())
        return PendingDeviceMask(
            self._download.start(*wanted), confidence, logits, drawn.uncertain is not None
        )

    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """Raises ValueError for scores that are NaN or infinite."""
        output = self.start_mask(scores, size).wait()
        if output is None:
            raise ValueError("some scores are NaN or infinite")
        return output.mask

    def upsample(self, scores: torch.Tensor) -> torch.Tensor:
        """The last step of a forward: (N, C, h, w) of `compute` -> (N, C, 2h, 2w)."""
        return self._operations.upsample(scores)

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (N, H, W, 3) uint8 on the device. Returns (N, C, h, w), to be upsampled by two."""
        scores: torch.Tensor = self.network(self._normalise(pixels))
        return scores

    def _scores(
        self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], graphs: Graphs | None
    ) -> torch.Tensor:
        with self._upload(pixels) as uploaded:
            if graphs is not None and graphs.takes(uploaded):
                return self.upsample(graphs(uploaded))
            return self.upsample(self.compute(uploaded))
