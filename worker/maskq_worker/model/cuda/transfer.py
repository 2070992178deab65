"""Between the machine's memory and the device's, beside what the device computes.

Both ways use pinned memory, which the copy engine reads and writes without the processor, and a stream
of their own. Events keep the order: a copy in before the forward that reads it, a mask before its copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pinned memory is kept for the next copy and never given back, so what is huge takes the slower way: a
# copy that whoever queues it would have to wait for, so that it is left to whoever wants the result.
_LARGEST_PINNED: Final = 32 * 2**20  # bytes


class Upload:
    """Images to the device, through two buffers in turn: one is filled while the other is read."""

    def __init__(self, device: torch.device) -> None:
        self._streams: Any = torch.get_device_module(
            device
        )  # torch.cuda; torch.cpu waits for nothing
        self._stream = self._streams.Stream()
        self._buffers = cycle([_Buffer(device, self._streams) for _ in range(2)])

    @contextmanager
    def __call__(self, images: Sequence[NDArray[Any]] | NDArray[Any]) -> Iterator[torch.Tensor]:
        """images: N times (H, W, 3) uint8. Gives (N, H, W, 3) on the device, for what is queued on the
        current stream within the `with`; afterwards it may be overwritten."""
        shape = (len(images), *images[0].shape)
        buffer: _Buffer = next(self._buffers)
        here = self._streams.current_stream()
        buffer.filled.synchronize()  # the copy before last has left the pinned memory
        host, there = buffer.views(shape)
        for place, image in zip(host.numpy(), images, strict=True):
            place[:] = image
        buffer.read.wait(self._stream)
        with self._streams.stream(self._stream):
            there.copy_(host, non_blocking=True)
        buffer.filled.record(self._stream)
        buffer.filled.wait(here)
        try:
            yield there
        finally:
            buffer.read.record(here)


class _Buffer:
    """Pinned memory and as much of the device's, and how far their last use has come."""

    def __init__(self, device: torch.device, streams: Any) -> None:
        self._device = device
        self._streams = streams
        self._host = torch.empty(0, dtype=torch.uint8)
        self._there = torch.empty(0, dtype=torch.uint8, device=device)
        self.filled = streams.Event()  # the device's memory, from the pinned one
        self.read = streams.Event()  # the device's memory, by what computes

    def views(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Both memories as this shape; larger ones are allocated as needed."""
        size = torch.Size(shape).numel()
        if self._host.numel() < size:
            self._streams.synchronize()  # nothing may still use what is replaced
            pinned = self._device.type == "cuda"
            host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            there = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._host, self._there = host, there  # both or, where memory ends, neither
        return self._host[:size].view(shape), self._there[:size].view(shape)


class Download:
    """Tensors from the device, without keeping it from the next forward."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: Any = torch.get_device_module(device)
        self._stream = self._streams.Stream()
        self._large_stream = self._streams.Stream()

    def __call__(self, *tensors: torch.Tensor) -> Callable[[], list[NDArray[Any]]]:
        """tensors: contiguous, of the current stream. Returns at once; what it returns waits for them,
        in any thread, and gives them as arrays."""
        ready, arrived = self._streams.Event(), self._event()
        ready.record(self._streams.current_stream())
        ready.wait(self._stream)
        with self._streams.stream(self._stream):
            hosts = [self._begun(tensor) for tensor in tensors]
        arrived.record(self._stream)
        return partial(self._arrays, tensors, hosts, arrived)

    def _event(self) -> Any:
        """One whose waiting thread sleeps: by default it would keep a core busy."""
        if self._device.type == "cuda":
            return self._streams.Event(blocking=True)
        return self._streams.Event()

    def _begun(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The memory that the tensor is being copied to; None: it is not."""
        if tensor.nbytes > _LARGEST_PINNED:
            return None
        pinned = self._device.type == "cuda"
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        return host.copy_(tensor, non_blocking=True)

    def _arrays(
        self, tensors: Sequence[torch.Tensor], hosts: Sequence[torch.Tensor | None], arrived: Any
    ) -> list[NDArray[Any]]:
        """tensors: kept until the copies have ended, since then their memory is taken."""
        arrived.synchronize()
        return [
            # A copy: the pinned memory serves the next.
            self._large(tensor) if host is None else host.numpy().copy()
            for tensor, host in zip(tensors, hosts, strict=True)
        ]

    def _large(self, tensor: torch.Tensor) -> NDArray[Any]:
        """Of a tensor that is complete. On a stream where nothing waits for forwards, as what computes
        does, and as does the copying of the next batch's."""
        with self._streams.stream(self._large_stream):
            return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).numpy()
