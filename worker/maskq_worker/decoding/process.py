"""The worker's side of one decoding process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from maskq.contract import FailureCode
from maskq_worker.decoding import headers, messages
from maskq_worker.decoding.memory import MOST_PIXEL_BYTES, most_bytes, needed_bytes
from maskq_worker.decoding.messages import Answer, Decode, Done, Failed, Pixels, Ready
from maskq_worker.decoding.shared_buffer import RGBX, SharedBuffer
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.imaging import Decoded

if TYPE_CHECKING:
    from maskq_worker.decoding.limits import DecodeLimits
    from maskq_worker.decoding.memory import ImageMemory

CHILD: Final = "maskq_worker.decoding.child"
STANDARD_BUFFER: Final = 4 * 2**20  # bytes: a megapixel; a larger image gets its own buffer
_START_S: Final = 60.0
# Variables that are passed to the process: the paths of Python and its libraries, the language. No
# credentials and no settings.
_PASSED_ON: Final = (
    "PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "LANG", "LC_ALL", "LC_CTYPE", "TZ",
)  # fmt: skip
_SET: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # Memory of an image of more than a megapixel is returned to the system at once.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}


class NotReceivedError(Exception):
    """The process ended before it took the image, which therefore cannot be the reason."""


class DecodeProcess:
    """A process started by exec, with a socket and a shared buffer. Used by one thread at a time."""

    def __init__(self, limits: DecodeLimits, module: str = CHILD) -> None:
        """Start `python -m module`. Raises TransientError if it does not start."""
        self._limits = limits
        self._buffer = SharedBuffer.create(STANDARD_BUFFER)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = _start(module, limits, theirs.fileno(), self._buffer.fd)
        except OSError as error:
            self._socket.close()
            self._buffer.close()
            raise _cannot_start(str(error)) from error
        self.usable = True
        self._await_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, memory: ImageMemory) -> Decoded | Pixels:
        """Decode an image, or return its number of pixels if that is more than `memory` grants.

        Raises JobError, or NotReceivedError. `usable` is False afterwards if the process ended, hung
        or has grown.
        """
        ended = True
        size = max(len(data), memory.pixels * RGBX)
        larger = SharedBuffer.create(size) if size > self._buffer.size else None
        used = larger or self._buffer
        try:
            used.write(data)
            answer = self._ask(
                Decode(length=len(data), memory=memory.granted, pixels=memory.pixels), larger
            )
            result = self._result(answer, used, memory)
            ended = False
        except TimeoutError:
            raise _invalid(
                data, f"did not end within {self._limits.wall_s:g} s, so it was stopped"
            ) from None
        except EOFError:
            raise self._death(data) from None
        except ConnectionError as error:  # the order was not read, or could not be sent
            raise NotReceivedError(self._ending()) from error
        except ValueError as error:
            raise _invalid(data, "gave an answer that is not valid, so it was stopped") from error
        finally:
            if larger:
                larger.close()
            if ended:
                self.close()
        if isinstance(result, JobError):
            raise result
        return result

    def kill(self) -> None:
        """Kill the process. A thread that waits for its answer then closes it."""
        self.usable = False
        self._process.kill()

    def close(self) -> None:
        """End the process and release its resources. May be called again."""
        self.kill()
        self._process.wait()
        self._socket.close()
        self._buffer.close()

    def _result(
        self, answer: Answer, used: SharedBuffer, memory: ImageMemory
    ) -> Decoded | Pixels | JobError:
        """The result in an answer. Raises ValueError if it does not fit the order."""
        if isinstance(answer, Failed):
            self.usable = not answer.grown
            return PermanentError(answer.code, answer.message)
        if isinstance(answer, Pixels):
            needed = needed_bytes(answer.pixels, answer.decoding_bytes)
            if answer.pixels <= memory.pixels and needed <= memory.granted:
                raise ValueError(f"{answer.pixels} pixels and {needed} bytes were granted already")
            if answer.pixels > self._limits.max_pixels:
                raise ValueError(f"{answer.pixels} pixels are more than any image may have")
            if needed > most_bytes(self._limits):
                return PermanentError(
                    FailureCode.IMAGE_TOO_LARGE,
                    f"decoding the image takes {needed >> 20} MiB of memory; at most "
                    f"{most_bytes(self._limits) >> 20} MiB are given (MASKQ_MAX_IMAGE_PIXELS times "
                    f"{MOST_PIXEL_BYTES} bytes)",
                )
            return answer
        if isinstance(answer, Done):
            if answer.width * answer.height > min(memory.pixels, used.size // RGBX):
                raise ValueError(f"{answer.width}x{answer.height} px are more than were granted")
            self.usable = not answer.grown
            image = used.read_image(answer.width, answer.height)
            return Decoded(image, answer.format, answer.notes)
        raise ValueError(f"{answer.kind} is not the answer to an image")

    def _await_ready(self) -> None:
        try:
            self._socket.settimeout(_START_S)
            if isinstance(messages.receive_answer(self._socket), Ready):
                return
            reason = "its first message was not that it is ready"
        except TimeoutError:
            reason = f"it was not ready within {_START_S:g} s"
        except (EOFError, ConnectionError, ValueError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_START_S)
            reason = f"it ended with {_named(self._process.returncode)}"
        self.close()
        raise _cannot_start(reason)

    def _ask(self, order: Decode, buffer: SharedBuffer | None) -> Answer:
        self._socket.settimeout(self._limits.wall_s)
        messages.send(self._socket, order, buffer)
        return messages.receive_answer(self._socket)

    def _ending(self) -> str:
        """How a process ended that has closed its socket."""
        try:
            return _named(self._process.wait(self._limits.wall_s))
        except subprocess.TimeoutExpired:
            return "a closed socket"

    def _death(self, data: bytes) -> JobError:
        """The error for a process that ended while it decoded an image."""
        try:
            code = self._process.wait(self._limits.wall_s)
        except subprocess.TimeoutExpired:  # it closed its socket, but still runs
            return _invalid(data, "stopped answering, so it was stopped")
        if code == -signal.SIGXCPU:
            return _invalid(
                data,
                f"took more than {self._limits.cpu_s} s of processor time, so it was stopped "
                "(MASKQ_MAX_DECODE_CPU_S)",
            )
        if code == -signal.SIGKILL:  # by an operator, or by the kernel if memory ran out
            return TransientError(
                FailureCode.OUT_OF_MEMORY,
                "the process that decoded the image was killed (SIGKILL); the machine or the "
                "container may have run out of memory",
            )
        return _invalid(data, f"crashed ({_named(code)})")


def _start(
    module: str, limits: DecodeLimits, socket_fd: int, buffer_fd: int
) -> subprocess.Popen[bytes]:
    most = most_bytes(limits) + limits.max_pixels * RGBX
    arguments = {
        "socket": socket_fd,
        "buffer": buffer_fd,
        "parent": os.getpid(),
        "max-pixels": limits.max_pixels,
        "most-bytes": most,
        "cpu-s": limits.cpu_s,
    }
    command = [sys.executable, "-P", "-m", module]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        command,
        env={**passed_on, **_SET, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        pass_fds=(socket_fd, buffer_fd),
    )


def _named(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _invalid(data: bytes, what: str) -> PermanentError:
    kind = headers.format_of(data)
    return PermanentError(
        FailureCode.INVALID_IMAGE,
        f"the decoder of the {kind} image {what}; the image is damaged or crafted".replace(
            "  ", " "
        ),
    )


def _cannot_start(reason: str) -> TransientError:
    return TransientError(
        FailureCode.INTERNAL,
        f"the worker cannot start a process that decodes images: {reason}",
        charged=False,
    )
