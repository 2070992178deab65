"""What is measured: a checkpoint, on a device, as transformers' network and as ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_scenes.scenes import draw
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.model.checkpoint.loading import load_network, load_source
from maskq_worker.model.cuda.backend import CudaBackend
from maskq_worker.model.cuda.graphs import Captured, Compute
from maskq_worker.model.cuda.load import load_cuda
from maskq_worker.model.cuda.precision import exact_float32
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.network import Network
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.preprocess.preprocessor import Preprocessor


@dataclass
class Subject:
    """Networks are loaded anew each time: ours takes transformers' apart."""

    directory: Path  # the checkpoint, in the hub's layout
    device: torch.device
    dry: bool  # as little as executes every line
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32)
    found: dict[str, Any] = field(default_factory=dict)  # what earlier parts found
    rows_file: Path | None = None  # keeps the rows of a part that may be cut off

    def __post_init__(self) -> None:
        exact_float32()

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows so far down: they are the part's figures if its process is ended."""
        if self.rows_file is not None:
            new = self.rows_file.with_suffix(".new")
            new.write_text(json.dumps({"rows": list(rows)}, default=str), encoding="utf-8")
            new.replace(self.rows_file)

    @cached_property
    def preprocessor(self) -> Preprocessor:
        return load_preprocessor(self.directory)

    @property
    def side(self) -> int:
        return self.preprocessor.side

    def transformers(self, dtype: torch.dtype = torch.float32) -> Any:
        """Its network as it comes."""
        return load_network(self.directory, dtype, DPT).to(self.device)

    def ours(self, dtype: str = "auto", *, warm: bool = True) -> CudaBackend:
        """The backend; warm: with its graphs, for the batches."""
        backend = load_cuda(
            Network(load_source(self.directory, DPT, self.device)),
            self.preprocessor,
            device=self.device,
            dtype=dtype,
        )
        if warm:
            backend.warm_up(max(self.batches))
        if warm and self.device.type != "cuda":  # so that a dry run comes by the graphs' way
            backend.capture(max(self.batches), _as_a_graph, lambda run: 1.0)
        return backend

    def scenes(self, count: int, first: int = 0) -> list[Image.Image]:
        """Drawn, 640x480 px, each another."""
        return [draw(first + number, size=(640, 480)).image for number in range(count)]

    def prepared(self, images: Sequence[Image.Image]) -> list[NDArray[np.uint8]]:
        """As job threads hand them to the model: (side, side, 3)."""
        return [self.preprocessor(image) for image in images]

    def pixels(self, count: int) -> torch.Tensor:
        """(count, side, side, 3) uint8 on the device: scenes, repeated."""
        some = self.prepared(self.scenes(min(count, 4)))
        stacked = np.stack([some[number % len(some)] for number in range(count)])
        return torch.from_numpy(stacked).to(self.device)

    def normalised(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What transformers' network takes."""
        return self.preprocessor.normalised(pixels).to(dtype).contiguous()


def _as_a_graph(compute: Compute, pixels: torch.Tensor) -> Captured:
    scores = compute(pixels)
    return Captured(lambda: scores.copy_(compute(pixels)), scores)


def demo(device: torch.device, *, dry: bool) -> Subject:
    """The demo checkpoint, whose masks make sense."""
    import maskq_standalone

    directory = Path(maskq_standalone.__file__).parent / "demo" / "checkpoint"
    return Subject(directory, device, dry, batches=(1,))
