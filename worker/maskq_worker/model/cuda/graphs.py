"""The forward as CUDA graphs: one for each batch size, recorded once and started by a single call.

A graph always reads and writes the same memory, and all graphs share it: pixels are copied in, and the
scores are valid until the next graph runs. One thread records the graphs and runs them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from maskq_worker.model.cuda.buckets import Plan

# pixels (N, H, W, 3) uint8 -> scores (N, C, h, w) float32
Compute = Callable[[torch.Tensor], torch.Tensor]

_SAME: Final = 1e-2  # of the largest score: a larger difference is an error, not rounding
_WARM_UP: Final = 3  # forwards before the recording, in which cuDNN chooses its algorithms
_TIMED: Final = 3  # runs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """One recorded forward."""

    replay: Callable[[], object]
    scores: torch.Tensor  # (N, C, h, w), which every replay overwrites


# Records a forward of pixels that stay in the same memory.
Capture = Callable[[Compute, torch.Tensor], Captured]


class Graphs:
    """Forwards of square batches up to a size."""

    def __init__(
        self,
        compute: Compute,
        buckets: Sequence[int],
        side: int,
        device: torch.device,
        *,
        capture: Capture,
        seconds: Callable[[Callable[[], object]], float],
    ) -> None:
        """Record a graph for each bucket. One that cannot be recorded is logged and omitted.

        Args:
            compute: the forward.
            buckets: batch sizes.
            side: of the square images, px.
            capture: `CaptureCuda()`, or a stand-in on a CPU.
            seconds: `seconds_cuda`, or a stand-in on a CPU.

        Raises:
            RuntimeError: if no graph can be recorded.
        """
        self._pixels = torch.empty((max(buckets), side, side, 3), dtype=torch.uint8, device=device)
        self._compute = compute
        self._captured: dict[int, Captured] = {}
        for bucket in sorted(
            buckets, reverse=True
        ):  # the small ones reuse the memory of the largest
            self._add(bucket, capture)
        if not self._captured:
            raise RuntimeError("no CUDA graph could be captured")
        self.seconds = {size: seconds(one.replay) for size, one in self._captured.items()}
        self._plan = Plan(self.seconds)

    def takes(self, pixels: torch.Tensor) -> bool:
        """Whether pixels (N, H, W, 3) have the size that was recorded."""
        return pixels.shape[1:] == self._pixels.shape[1:]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (N, H, W, 3) uint8, any N. Returns (N, C, h, w), valid until the next call."""
        parts = self._plan.split(len(pixels))
        if len(parts) == 1:
            return self._run(parts[0][0], pixels)
        whole, start = [], 0
        for bucket, inside in parts:
            part = self._run(bucket, pixels[start : start + inside])
            whole.append(part.clone())  # a bucket may come twice
            start += inside
        return torch.cat(whole)

    def _run(self, bucket: int, pixels: torch.Tensor) -> torch.Tensor:
        """The batch is padded with old pixels: images of a batch do not influence one another."""
        captured = self._captured[bucket]
        self._pixels[: len(pixels)].copy_(pixels)
        captured.replay()
        return captured.scores[: len(pixels)]

    def _add(self, bucket: int, capture: Capture) -> None:
        pixels = self._pixels[:bucket]
        try:
            captured = capture(self._compute, pixels)
            self._check(captured, pixels)
        except Exception as error:  # noqa: BLE001 - eager forwards still work
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _log.warning("no CUDA graph for batches of %d (%s)", bucket, reason[0])
            return
        self._captured[bucket] = captured

    def _check(self, captured: Captured, pixels: torch.Tensor) -> None:
        """Compare the graph with an eager forward, on other pixels than at the recording.

        Noise may overflow fp16 where photographs do not: then both must overflow in the same places.
        """
        pixels.random_(0, 256)
        captured.replay()
        expected = self._compute(pixels)
        sound = expected.isfinite()
        if not torch.equal(captured.scores.isfinite(), sound):
            raise RuntimeError(
                "its scores are NaN or infinite in other places than an eager forward's"
            )
        largest = expected.abs().where(sound, 0.0).max()
        difference = (captured.scores - expected).abs().where(sound, 0.0).max()
        if difference > _SAME * largest:
            raise RuntimeError(
                f"its scores differ by {difference.item():.2g} from an eager forward's, whose largest "
                f"is {largest.item():.2g}"
            )


class CaptureCuda:
    """Records graphs on a GPU. They share their memory, since one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # the default stream cannot be recorded

    def __call__(self, compute: Compute, pixels: torch.Tensor) -> Captured:
        try:
            return self._captured(compute, pixels)
        except Exception:
            # A recording that was cut short may leave its memory unusable.
            self._pool = torch.cuda.graph_pool_handle()
            raise

    def _captured(self, compute: Compute, pixels: torch.Tensor) -> Captured:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            with _chosen_algorithms():  # not while recording: trying an algorithm waits for it
                for _ in range(_WARM_UP):
                    compute(pixels)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # thread_local: calls of other threads do not spoil the recording.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                scores = compute(pixels)
        return Captured(graph.replay, scores)


@contextmanager
def _chosen_algorithms() -> Iterator[None]:
    """Let cuDNN try its algorithms: only here, while no job waits and shapes are few."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def seconds_cuda(run: Callable[[], object]) -> float:
    """The shortest of some runs: other processes may start on the GPU at the same time."""
    run()
    return min(_timed(run) for _ in range(_TIMED))


def _timed(run: Callable[[], object]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3
