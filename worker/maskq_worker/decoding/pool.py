"""Decoding processes of one worker: started when needed, replaced when they end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from maskq.contract import FailureCode
from maskq_worker.decoding.memory import ImageMemory
from maskq_worker.decoding.messages import Pixels
from maskq_worker.decoding.process import CHILD, DecodeProcess, NotReceivedError
from maskq_worker.errors import JobError, PermanentError, TransientError

if TYPE_CHECKING:
    from maskq_worker.decoding.limits import DecodeLimits
    from maskq_worker.imaging import Decoded

logger = logging.getLogger(__name__)

# To read the size, to decode, and once more for a GIF whose frame is larger than its screen. As often
# an image is given to another process if one ended before it took the image.
_TRIES = 3


class ProcessDecoder:
    """Decodes images in other processes; each process decodes one image at a time."""

    def __init__(self, limits: DecodeLimits, processes: int, module: str = CHILD) -> None:
        """processes: the maximum. `start` starts the first; others start when all are busy."""
        self._limits = limits
        self._module = module
        self._most = processes
        self._all: set[DecodeProcess] = set()
        self._idle: list[DecodeProcess] = []
        self._starting = 0
        self._closed = False
        self._changed = threading.Condition()
        # The kernel kills a process when the *thread* that started it ends (PR_SET_PDEATHSIG). Job
        # threads may end; this one lasts as long as the worker.
        self._starter = ThreadPoolExecutor(1, "maskq-decode-starter")

    def start(self) -> None:
        """Start the first process. Raises JobError if it does not start."""
        self._put_back(self._borrow())

    def decode(self, data: bytes, take: Callable[[int], object]) -> Decoded:
        """See `Decoder.decode`."""
        memory = ImageMemory(data, self._limits, take)
        for _ in range(_TRIES):
            result = self._try(data, memory)
            if not isinstance(result, Pixels):
                return result
            # No process is held while waiting: threads that have memory may need one.
            memory.allow(result.pixels, result.decoding_bytes)
        raise PermanentError(
            FailureCode.INVALID_IMAGE,
            "the image's header states a larger size each time it is read",
        )

    def _try(self, data: bytes, memory: ImageMemory) -> Decoded | Pixels:
        ending = ""
        for _ in range(_TRIES):
            process = self._borrow()
            try:
                return process.decode(data, memory)
            except NotReceivedError as error:
                ending = str(error)
                logger.warning("decoding process %d ended with %s", process.pid, ending)
            except JobError as error:
                if self._closed:  # the worker ended the process; the image is not at fault
                    raise _stopping() from error
                raise
            finally:
                self._put_back(process)
        raise TransientError(
            FailureCode.INTERNAL,
            f"{_TRIES} processes that decode images ended before they took the image, the last with "
            f"{ending}",
        )

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            busy, self._all = self._all.difference(idle), set()
            self._changed.notify_all()
        for process in busy:
            process.kill()
        for process in idle:
            process.close()
        self._starter.shutdown()

    @property
    def pids(self) -> list[int]:
        """The process ids of the running processes."""
        with self._changed:
            return [process.pid for process in self._all]

    def _borrow(self) -> DecodeProcess:
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._closed or self._idle or self._count < self._most
                )
                if self._closed:
                    raise _stopping()
                if not self._idle:
                    break
                process = self._idle.pop()
                if process.alive:
                    return process
                logger.warning("decoding process %d ended while it was idle", process.pid)
                self._all.discard(process)
                process.close()
            self._starting += 1
        try:
            process = self._starter.submit(DecodeProcess, self._limits, self._module).result()
        except BaseException:
            with self._changed:
                self._starting -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._starting -= 1
            if not self._closed:
                self._all.add(process)
                return process
        process.close()
        raise _stopping()

    @property
    def _count(self) -> int:
        return len(self._all) + self._starting

    def _put_back(self, process: DecodeProcess) -> None:
        with self._changed:
            keep = process.usable and not self._closed
            if keep:
                self._idle.append(process)
            else:
                self._all.discard(process)
            self._changed.notify()
        if not keep:
            process.close()


def _stopping() -> TransientError:
    return TransientError(FailureCode.WORKER_LOST, "its worker was told to stop", charged=False)
