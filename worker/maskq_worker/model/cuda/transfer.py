"""Copies between the machine's memory and the device's, beside what the device computes.

Both directions use pinned memory, which the copy engine reads and writes without the CPU, and a stream
of their own. Events keep the order: a forward runs after the upload of its pixels, and a download after
the mask that it copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# torch keeps pinned memory for the next copy and never frees it. A larger tensor is copied to pageable
# memory, which the caller has to wait for: so the thread that wants the result does it.
_LARGEST_PINNED: Final = 32 * 2**20  # bytes


class Upload:
    """Copies images to the device, by two buffers in turn: one is filled while the other is read."""

    def __init__(self, device: torch.device) -> None:
        self._streams: Any = torch.get_device_module(
            device
        )  # torch.cuda; torch.cpu waits for nothing
        self._stream = self._streams.Stream()
        self._buffers = cycle([_Buffer(device, self._streams) for _ in range(2)])

    @contextmanager
    def __call__(self, images: Sequence[NDArray[Any]] | NDArray[Any]) -> Iterator[torch.Tensor]:
        """Copy a batch to the device.

        Args:
            images: N times (H, W, 3) uint8.

        Yields:
            (N, H, W, 3) uint8 on the device, for work that the `with` queues on the current stream.
            Later work may find other pixels there.
        """
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
    """Pinned memory and as much of the device's memory, with events of their last use."""

    def __init__(self, device: torch.device, streams: Any) -> None:
        self._device = device
        self._streams = streams
        self._host = torch.empty(0, dtype=torch.uint8)
        self._there = torch.empty(0, dtype=torch.uint8, device=device)
        self.filled = streams.Event()  # the device's memory is filled from the pinned memory
        self.read = streams.Event()  # the forward has read the device's memory

    def views(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Both memories in this shape: the pinned one, the device's. They grow as needed."""
        size = torch.Size(shape).numel()
        if self._host.numel() < size:
            self._streams.synchronize()  # nothing may still use the memory that is replaced
            pinned = self._device.type == "cuda"
            host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            there = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._host, self._there = host, there  # both, or neither if memory ends
        return self._host[:size].view(shape), self._there[:size].view(shape)


class Download:
    """Copies tensors from the device, beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: Any = torch.get_device_module(device)
        self._stream = self._streams.Stream()
        self._large_stream = self._streams.Stream()

    def start(self, *tensors: torch.Tensor) -> PendingDownload:
        """Queue the copies, and return at once. tensors: contiguous, of the current stream."""
        ready, arrived = self._streams.Event(), self._event()
        ready.record(self._streams.current_stream())
        ready.wait(self._stream)
        with self._streams.stream(self._stream):
            hosts = [self._host_copy(tensor) for tensor in tensors]
        arrived.record(self._stream)
        return PendingDownload(tensors, hosts, arrived, self)

    def copy_large(self, tensor: torch.Tensor) -> NDArray[Any]:
        """Copy a complete tensor now, on a stream of its own: forwards and the copies of the next batch
        do not wait for it."""
        with self._streams.stream(self._large_stream):
            return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).numpy()

    def _event(self) -> Any:
        """One whose waiting thread sleeps: by default it would keep a core busy."""
        if self._device.type == "cuda":
            return self._streams.Event(blocking=True)
        return self._streams.Event()

    def _host_copy(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Queue the copy of a tensor to pinned memory; None: it is too large for that."""
        if tensor.nbytes > _LARGEST_PINNED:
            return None
        pinned = self._device.type == "cuda"
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        return host.copy_(tensor, non_blocking=True)


@dataclass(frozen=True, slots=True)
class PendingDownload:
    """Copies that are queued."""

    tensors: Sequence[torch.Tensor]  # kept until the copies have ended: their memory is in use
    hosts: Sequence[torch.Tensor | None]  # where each is copied to; None: it is copied by `wait`
    arrived: Any  # the event after the last copy
    download: Download

    def wait(self) -> list[NDArray[Any]]:
        """Wait for the copies, in any thread. Returns the tensors as arrays, in order."""
        self.arrived.synchronize()
        return [
            # A copy of the pinned memory, which serves the next download.
            self.download.copy_large(tensor) if host is None else host.numpy().copy()
            for tensor, host in zip(self.tensors, self.hosts, strict=True)
        ]
