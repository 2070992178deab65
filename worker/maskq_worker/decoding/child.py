"""A process that decodes images and does nothing else: `python -m maskq_worker.decoding.child`.

Its environment has no credentials. Before it reads the first image it limits its memory, CPU time and
open files; it cannot write files. It is not a sandbox against an attacker who runs code in it: the
process has its user's rights to read files and to connect.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from maskq.contract import FailureCode
from maskq.process.parent_death import die_with_parent
from maskq_worker.decoding import messages
from maskq_worker.decoding.memory import needed_bytes
from maskq_worker.decoding.messages import Decode, Done, Failed, Pixels, Ready
from maskq_worker.decoding.shared_buffer import SharedBuffer
from maskq_worker.errors import JobError, PermanentError
from maskq_worker.imaging import decode

MOST_FILES: Final = 64  # open at one time
# For memory beside the pixels: text and a colour profile of a PNG, tables, code that a decoder loads at
# its first use.
SPARE_BYTES: Final = 96 * 2**20
GROWN_BYTES: Final = 128 * 2**20  # a process that holds more between two images is replaced
_KILLED_FIRST: Final = "800"  # of 1000: if memory runs out, the kernel kills this process first
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Limits:
    """The limits of this process, renewed for each image."""

    def __init__(self, most_bytes: int, cpu_s: int) -> None:
        """most_bytes: that any image may take."""
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._cpu_s = cpu_s
        self._start = self.address_space()
        self._most = _lower_hard(resource.RLIMIT_AS, self._start + most_bytes + 2 * SPARE_BYTES)
        _lower_hard(resource.RLIMIT_CORE, 0)
        _lower_hard(resource.RLIMIT_FSIZE, 0)
        _lower_hard(resource.RLIMIT_NOFILE, MOST_FILES)

    def address_space(self) -> int:
        """Bytes that are mapped now."""
        return int(os.pread(self._statm, 100, 0).split()[0]) * resource.getpagesize()

    @property
    def grown(self) -> bool:
        return self.address_space() - self._start > GROWN_BYTES

    def begin_image(self, memory: int) -> None:
        """Limit the memory for one image, and restart the limit of CPU time."""
        allowed = min(self.address_space() + memory + SPARE_BYTES, self._most)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, self._most))
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        seconds = math.ceil(time.process_time()) + self._cpu_s
        soft = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))

    def end_image(self) -> None:
        """Allow the memory of any image."""
        resource.setrlimit(resource.RLIMIT_AS, (self._most, self._most))


class Service:
    """Decodes the worker's images, one at a time."""

    def __init__(
        self, worker: socket.socket, buffer: SharedBuffer, limits: Limits, max_pixels: int
    ) -> None:
        self._worker = worker
        self._standard = self._buffer = buffer
        self._limits = limits
        self._max_pixels = max_pixels

    def run(self) -> None:
        """Serve until the worker ends."""
        messages.send(self._worker, Ready())
        while True:
            order, buffer = messages.receive_order(self._worker)
            if buffer is not None:
                self._use(buffer)
            messages.send(self._worker, self._answer(order))

    def _use(self, buffer: SharedBuffer) -> None:
        """Switch to another buffer, and close the last one unless it is the standard buffer."""
        if self._buffer not in (self._standard, buffer):
            self._buffer.close()
        self._buffer = buffer

    def _answer(self, order: Decode) -> Done | Failed | Pixels:
        self._limits.begin_image(order.memory)
        code, message, decoded = FailureCode.INTERNAL, "", None
        try:
            decoded = self._decoded(order)
        except _MorePixels as more:
            return Pixels(pixels=more.pixels, decoding_bytes=more.decoding_bytes)
        except JobError as error:
            code, message = error.code, error.message
        except MemoryError:
            code = FailureCode.OUT_OF_MEMORY
        except Exception as error:  # noqa: BLE001 - one image must not end the process
            message = f"an unexpected {type(error).__name__} while decoding: {error}"
        finally:
            self._limits.end_image()
            self._use(self._standard)
        if decoded is None:
            if (
                code is FailureCode.OUT_OF_MEMORY
            ):  # our own limit, which is the same in every process
                code = FailureCode.IMAGE_TOO_LARGE
                message = (
                    f"decoding the image takes more than {order.memory + SPARE_BYTES >> 20} MiB of "
                    "memory, which an image of its size and format should not need"
                )
            return Failed(code=code, message=message[:2000], grown=self._limits.grown)
        width, height, kind, notes = decoded
        return Done(width=width, height=height, format=kind, notes=notes, grown=self._limits.grown)

    def _decoded(self, order: Decode) -> tuple[int, int, str, tuple[str, ...]]:
        def check(pixels: int, decoding_bytes: int) -> None:
            if pixels > order.pixels or needed_bytes(pixels, decoding_bytes) > order.memory:
                raise _MorePixels(pixels, decoding_bytes)

        data = self._buffer.read(order.length)
        decoded = decode(data, max_pixels=self._max_pixels, on_pixels=check)
        image = decoded.image
        if image.width * image.height > order.pixels:
            raise PermanentError(
                FailureCode.INVALID_IMAGE,
                f"the image is {image.width}x{image.height} px, which is more than its header says",
            )
        self._buffer.write_image(image)
        return image.width, image.height, decoded.format, decoded.notes


class _MorePixels(BaseException):
    """Passes through `decode`, which treats every Exception as an error of the image."""

    def __init__(self, pixels: int, decoding_bytes: int) -> None:
        self.pixels = pixels
        self.decoding_bytes = decoding_bytes


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("socket", "buffer", "parent", "max-pixels", "most-bytes", "cpu-s"):
        options.add_argument(f"--{name}", type=int, required=True)
    chosen = options.parse_args()
    # By SIGKILL, since SIGTERM is ignored, also in the middle of an image.
    die_with_parent(chosen.parent, signal.SIGKILL)
    for number in _IGNORED:  # signals to a process group are for the worker
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    _silence()
    limits = Limits(chosen.most_bytes, chosen.cpu_s)
    with socket.socket(fileno=chosen.socket) as worker, suppress(EOFError, ConnectionError):
        # Sockets that the worker makes have its default timeout, which Celery sets while it shuts down:
        # that puts them into non-blocking mode, here as well.
        worker.setblocking(True)
        buffer = SharedBuffer.opened(chosen.buffer)
        Service(worker, buffer, limits, chosen.max_pixels).run()


def _silence() -> None:
    """Close stdin, stdout and stderr: decoders in C write content of files to stderr."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _lower_hard(which: int, wanted: int) -> int:
    """Set the soft and hard limit to `wanted`, or to the present hard limit if that is lower."""
    _, hard = resource.getrlimit(which)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (value, value))
    return value


if __name__ == "__main__":
    main()
