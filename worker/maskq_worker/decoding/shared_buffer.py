"""Memory that a worker shares with one of its decoding processes."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import Image

RGBX: Final = 4  # bytes a pixel, as Pillow holds RGB
_CHUNK: Final = 2**17  # bytes


class SharedBuffer:
    """An anonymous file in memory, mapped by both processes.

    Its size is sealed: a process that made it shorter would end the other one with SIGBUS.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Owns `fd`."""
        self.fd = fd
        self.size = size
        self._map = mmap.mmap(fd, size)

    @classmethod
    def create(cls, size: int) -> SharedBuffer:
        """size: bytes; they take memory once they are written."""
        fd = os.memfd_create("maskq-decoding", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return cls(fd, size)

    @classmethod
    def opened(cls, fd: int) -> SharedBuffer:
        """A buffer that another process created."""
        return cls(fd, os.fstat(fd).st_size)

    def write(self, data: bytes) -> None:
        self._map[: len(data)] = data

    def read(self, length: int) -> bytes:
        return self._map[:length]

    def write_image(self, image: Image.Image) -> None:
        """image: RGB, at most `size` / 4 pixels.

        In chunks that stay in the processor's cache, by the encoder below `Image.tobytes`, which would
        copy everything twice more.
        """
        from PIL import Image

        encoder = Image.core.raw_encoder("RGB", "RGBX", 0, 1)
        encoder.setimage(image.im, (0, 0, *image.size))
        at, error = 0, 0
        while not error:
            _, error, chunk = encoder.encode(max(_CHUNK, image.width * RGBX))
            self._map[at : at + len(chunk)] = chunk
            at += len(chunk)
        encoder.cleanup()
        if error < 0 or at != image.width * image.height * RGBX:
            raise ValueError(f"the pixels cannot be copied: error {error} after {at} bytes")

    def read_image(self, width: int, height: int) -> Image.Image:
        """A copy: the other process may write to this memory at any time."""
        from PIL import Image

        image = Image.new("RGB", (width, height), None)  # not filled, since all of it is written
        with self._view(width * height * RGBX) as pixels:
            image.frombytes(pixels, "raw", "RGBX")
        return image

    def close(self) -> None:
        if not self._map.closed:
            self._map.close()
            os.close(self.fd)

    @contextmanager
    def _view(self, length: int) -> Iterator[memoryview]:
        with memoryview(self._map) as whole, whole[:length] as part:
            yield part
