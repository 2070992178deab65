"""Stand-ins for what only a card does, and images to try them with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskq_worker.model.cuda.graphs import Captured, Compute


def capture(compute: Compute, pixels: torch.Tensor) -> Captured:
    """As a graph behaves: it reads and writes the same memory every time."""
    scores = compute(pixels).clone()
    return Captured(lambda: scores.copy_(compute(pixels)), scores)


def seconds(run: Callable[[], object]) -> float:
    run()
    return 1.0


def images(count: int, side: int = 8, *, seed: int = 1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=draw).to(torch.uint8)
