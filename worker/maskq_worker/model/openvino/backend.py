"""The backend of a network that OpenVINO computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from maskq_worker.model.backend import Backend
from maskq_worker.model.masks.bounded import upsampled_argmax
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.openvino import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

OPENVINO: Final = "openvino"
_ANY: Final = (-1, -1)  # height and width, to OpenVINO


class OpenVINOBackend(Backend):
    """Scores by OpenVINO on a CPU; masks in bounded memory.

    The network is compiled twice: for the trained square, which is a fifth faster, when the backend is
    made; and for all other shapes when the first one comes, since the two share no memory.
    """

    name = OPENVINO
    device = torch.device("cpu")
    supports_rectangles = True
    thread_safe_masks = True

    def __init__(self, model: Any, preprocessor: Preprocessor, *, dtype: torch.dtype) -> None:
        """model: as of `converted`. dtype: int8 for a quantised one, float32 for any other."""
        self.dtype = dtype
        self._preprocessor = preprocessor
        self._model = model
        square = (preprocessor.side, preprocessor.side)
        self._requests = {square: _compile(model, square)}

    @torch.inference_mode()
    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        """The scores are `channels_last` in memory."""
        batch = self._preprocessor.normalised(torch.from_numpy(np.stack(list(pixels))))
        # One by one: a CPU gains nothing from a batch, and one compiled shape does for all.
        scores = [self._scores(image) for image in batch.split(1)]
        return scores[0] if len(scores) == 1 else torch.cat(scores)

    @torch.inference_mode()
    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        return upsampled_argmax(scores, size)

    def _scores(self, batch: torch.Tensor) -> torch.Tensor:
        """batch: (1, 3, H, W) float32. Returns (1, C, h, w) float32."""
        channels_last = batch.movedim(1, -1).contiguous()
        request = self._request((channels_last.shape[1], channels_last.shape[2]))
        # The answer lies in the request's own memory, until the upsampling has copied it.
        [coarse] = request.infer(
            [channels_last.numpy()], share_inputs=True, share_outputs=True
        ).values()
        return upsample(torch.from_numpy(coarse).movedim(-1, 1))

    def _request(self, size: tuple[int, int]) -> Any:
        """OpenVINO's InferRequest for inputs of (H, W) px."""
        found = self._requests.get(size) or self._requests.get(_ANY)
        if found is None:
            found = self._requests[_ANY] = _compile(self._model, _ANY)
        return found


def _compile(model: Any, size: tuple[int, int]) -> Any:
    """size: (H, W) px. Returns OpenVINO's InferRequest."""
    fixed = model.clone()
    fixed.reshape([1, *size, 3])
    core = runtime.openvino().Core()
    return core.compile_model(fixed, runtime.DEVICE, runtime.settings()).create_infer_request()
