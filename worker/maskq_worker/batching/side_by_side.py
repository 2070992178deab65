"""The items of a full batch side by side on a CPU: a thread for each, with a share of the cores.

The threads of one forward wait for one another after each step. Where something else computes beside
it, such as a mask, all wait for the one that shares its core. With an image for each core nobody waits.
A batch that is not full is computed by all cores together: its threads would need OpenMP helpers of
their own, and libgomp lets all helpers sleep where several threads have some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class ImageThreads:
    """As many threads as a full batch has images."""

    def __init__(self, images: int) -> None:
        import torch

        self.images = images
        self._cores = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(images, "maskq-image")

    def map(self, compute: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """Call `compute` for each item. Raises what one raised, when all have ended."""
        threads = max(1, self._cores // len(items))
        running = [self._pool.submit(_with_threads, threads, compute, item) for item in items]
        wait(running)
        return [one.result() for one in running]

    def close(self) -> None:
        self._pool.shutdown()


def _with_threads(threads: int, compute: Callable[[In], Out], item: In) -> Out:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(
            threads
        )  # of this thread, and of threads that have not used torch yet
    return compute(item)
