"""How scores are computed: the reference path of transformers, and the same result for less.

`transformers` is the reference, always selectable. `cpu` and `cuda` are our own network (network/) on
that device. `auto` is told below.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from maskq_worker.model.errors import ModelError
from maskq_worker.model.masks import mask_dtype, upsampled_argmax
from maskq_worker.model.network import Network, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFERENCE: Final = "transformers"
# The devices on which `auto` takes our own network, and not transformers' without its spare parts.
AUTO_TAKES_OURS: Final[frozenset[str]] = frozenset()

_log = logging.getLogger(__name__)

# The first fusion layer has no second input, so Intel's checkpoints lack the layer that would take
# it; the auxiliary head serves training only. Neither touches the scores.
_NOT_NEEDED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\.|auxiliary_head\.")
# A weight too many in these parts means another network than config.json describes.
_NETWORK = re.compile(r"(dpt\.(embeddings|encoder)|neck|head)\.(?!.*num_batches_tracked$)")


class Reference:
    """transformers as it comes: its network, its post-processing."""

    def __init__(self, network: Any, processor: Any, *, name: str = REFERENCE) -> None:
        self.name = name
        self.device: torch.device = network.device
        self.dtype: torch.dtype = network.dtype
        self._network = network
        self._processor = processor

    def forward(self, pixels: NDArray[np.float32]) -> torch.Tensor:
        """pixels: (N, 3, S, S). Returns (N, C, h, w) float32 on the device, complete."""
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device, self.dtype)
            logits: torch.Tensor = self._network(pixel_values=batch).logits.float()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return logits

    def mask(self, logits: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """logits: (C, h, w) float32; size: (H, W) px. Returns (H, W), uint8 up to 256 classes."""
        return reference_mask(self._processor, logits, size)


class Lean(Reference):
    """The same network without what nobody reads; masks in bounded memory."""

    def __init__(self, network: Any, processor: Any) -> None:
        network.auxiliary_head = None  # 8 % of the work, and only a loss ever read it
        super().__init__(network, processor, name=network.device.type)

    def mask(self, logits: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        with torch.inference_mode():
            return upsampled_argmax(logits, size)


class Rewritten(Reference):
    """Our own network over the same weights; masks in bounded memory."""

    def __init__(
        self, network: Network, processor: Any, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.name = device.type
        self.device = device
        self.dtype = dtype
        self._network = network
        self._processor = processor

    @torch.inference_mode()
    def forward(self, pixels: NDArray[np.float32]) -> torch.Tensor:
        """As the reference's."""
        batch = torch.from_numpy(pixels).to(self.device, self.dtype)
        logits: torch.Tensor = self._network(batch).float()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return logits

    @torch.inference_mode()
    def mask(self, logits: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """As the reference's."""
        return upsampled_argmax(logits, size)


def load_backend(
    directory: Path, processor: Any, *, backend: str, device: str, dtype: str
) -> Reference:
    """backend: auto | transformers | cpu | cuda; device: auto | cpu | cuda; dtype: auto or torch's.

    `auto` dtype is float32, and float16 on CUDA, except for the reference. Raises ModelError.
    """
    place = choose_device(device, backend)
    plain = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    if backend == REFERENCE:
        return Reference(load_network(directory, plain).to(place), processor)
    precision = torch.float16 if dtype == "auto" and place.type == "cuda" else plain
    if backend == "auto" and place.type not in AUTO_TAKES_OURS:
        return Lean(load_network(directory, precision).to(place), processor)
    # Folded as float32 where the weights are meant to be half, and rounded once, after it.
    network = load_network(directory, torch.float32)
    try:
        ours = Network(network)
    except UnsupportedError as error:
        _log.warning(
            "%s is not a network that backend %s knows (%s), so transformers computes its scores",
            directory,
            backend,
            error,
        )
        return Reference(network.to(place, plain), processor)
    ours.to(place, precision).head.classifier.float()
    return Rewritten(ours, processor, place, precision)


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


def load_network(directory: Path, dtype: torch.dtype) -> Any:
    """DPTForSemanticSegmentation in evaluation mode, with every weight from the checkpoint."""
    from transformers import DPTForSemanticSegmentation

    loader: Any = DPTForSemanticSegmentation  # its annotations leave out the report
    try:
        with _quiet_transformers():
            network, report = loader.from_pretrained(
                directory,
                dtype=dtype,
                attn_implementation={"": "sdpa"},  # not of a hybrid's backbone, which has none
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are in the report, and refused below
            )
    except Exception as error:  # safetensors, torch and transformers each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{directory} could not be loaded: {reason}") from error
    _check_weights(directory, report)
    return network.eval()


def reference_mask(processor: Any, logits: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """transformers' own mask of one image: logits (C, h, w), size (H, W) px."""
    from transformers.modeling_outputs import SemanticSegmenterOutput

    with torch.inference_mode():
        # One image at a time: for a batch, transformers keeps the scores of all until the end.
        outputs = SemanticSegmenterOutput(logits=logits[None])
        mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
    scored: NDArray[Any] = mask.cpu().numpy()
    return scored.astype(mask_dtype(len(logits)))


def _check_weights(directory: Path, report: dict[str, Any]) -> None:
    """A network with weights of chance still gives masks, so each must be there and fit."""
    for name, stored, expected in sorted(report["mismatched_keys"]):
        if not _NOT_NEEDED.match(name):
            raise ModelError(
                f"{directory} does not fit its config.json: {name} has shape {tuple(stored)}, "
                f"expected {tuple(expected)}"
            )
    missing = sorted(key for key in report["missing_keys"] if not _NOT_NEEDED.match(key))
    if missing:
        raise ModelError(f"{directory} lacks {len(missing)} weights, {missing[0]} among them")
    surplus = sorted(key for key in report["unexpected_keys"] if _NETWORK.match(key))
    if surplus:
        raise ModelError(
            f"{directory} holds {len(surplus)} weights that its config.json has no place for, "
            f"{surplus[0]} among them"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no report: what matters in it becomes a ModelError."""
    from transformers import utils

    logging: Any = utils.logging  # without annotations
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
