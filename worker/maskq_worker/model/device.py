"""Errors of the device that the model runs on: too little memory, or a GPU that is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError

_NO_MEMORY: Final = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


class DeviceGuard:
    """Translates and reports the errors of one device."""

    def __init__(self, device: str, on_lost: Callable[[str, Exception], None] | None) -> None:
        """
        Args:
            device: cpu | cuda:0.
            on_lost: called with the device and the error, in the thread that hears of it, when the
                device is lost to this process.
        """
        self._device = device
        self._on_lost = on_lost

    @contextmanager
    def memory_errors(self, what: str, advice: str = "") -> Iterator[None]:
        """Raise PermanentError `out_of_memory` if `what` does not fit the device's memory."""
        try:
            yield
        except Exception as error:
            if not _out_of_memory(error):
                raise
            self.free_memory()
            raise PermanentError(
                FailureCode.OUT_OF_MEMORY,
                f"{what} does not fit the memory of {self._device}" + (advice and f": {advice}"),
            ) from error

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Report an error after which the device is lost, and raise it."""
        try:
            yield
        except Exception as error:
            if self.is_lost(error) and self._on_lost is not None:
                self._on_lost(self._device, error)
            raise

    def is_lost(self, error: Exception) -> bool:
        """Whether the device is lost to this process after `error`."""
        from maskq_worker.model.cuda.faults import is_fault

        return is_fault(error)

    def free_memory(self) -> None:
        """Return the memory that torch keeps for the next tensors to the GPU."""
        import torch

        with suppress(RuntimeError):  # after a graph's recording that was cut short it may fail
            torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    """torch's allocator on a GPU raises a type of its own. The driver, the libraries and the CPU's
    allocator raise a RuntimeError."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )
