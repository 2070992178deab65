"""Decoders of images: in separate processes, or in the job's thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from maskq.errors import InvalidRequest
from maskq_worker.decoding.limits import DecodeLimits
from maskq_worker.decoding.memory import ImageMemory
from maskq_worker.imaging import decode
from maskq_worker.process.cores import Machine

if TYPE_CHECKING:
    from maskq_worker.imaging import Decoded
    from maskq_worker.settings import WorkerSettings


class Decoder(Protocol):
    """Decodes images. Thread-safe."""

    def decode(self, data: bytes, take: Callable[[int], object]) -> Decoded:
        """Decode the first frame of an image.

        take: waits until so many bytes are free and reserves them, instead of those reserved before.
        Raises JobError: `invalid_image`, `image_too_large`, or a temporary error.
        """

    def close(self) -> None:
        """End the processes, if there are any."""


class ThreadDecoder:
    """Decodes in the calling thread.

    An image that crashes a decoder ends the worker, and an image that takes forever is not stopped.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def decode(self, data: bytes, take: Callable[[int], object]) -> Decoded:
        """See `Decoder.decode`."""
        memory = ImageMemory(data, self._limits, take)
        decoded = decode(data, max_pixels=self._limits.max_pixels, on_pixels=memory.allow)
        memory.check(decoded.image)
        return decoded

    def close(self) -> None:
        """Nothing to end."""


def make_decoder(settings: WorkerSettings, *, concurrency: int) -> Decoder:
    """The decoder that MASKQ_DECODE_IN names. Its first process runs when this returns.

    concurrency: jobs in flight. Raises InvalidRequest if the platform does not support processes.
    """
    limits = DecodeLimits.of(settings)
    where = settings.decode_in or ("process" if sys.platform == "linux" else "thread")
    if where == "thread":
        return ThreadDecoder(limits)
    if sys.platform != "linux":
        raise InvalidRequest(
            "MASKQ_DECODE_IN=process needs Linux (shared memory that is sealed); "
            "MASKQ_DECODE_IN=thread decodes in the worker itself"
        )
    from maskq_worker.decoding.pool import ProcessDecoder

    decoder = ProcessDecoder(limits, settings.decode_processes or _processes(concurrency))
    decoder.start()
    return decoder


def _processes(concurrency: int) -> int:
    """One per core; more would only take memory."""
    return min(concurrency, max(2, Machine.read().cores))
