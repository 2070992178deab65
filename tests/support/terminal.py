"""A command in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any, Self

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`maskq …` in a pseudo-terminal. Use it in a `with` block, whose end kills the command."""

    def __init__(self, arguments: Sequence[str], *, columns: int = 80, lines: int = 24) -> None:
        self._near, self._far = os.openpty()
        fcntl.ioctl(self._far, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._raw = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "maskq", *arguments],
            stdin=self._far,
            stdout=self._far,
            stderr=self._far,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._near)
        os.close(self._far)

    @property
    def mode(self) -> list[Any]:
        """Of the terminal, as termios has it."""
        return termios.tcgetattr(self._far)

    @property
    def text(self) -> str:
        """All that was written, without control sequences."""
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    @property
    def raw(self) -> str:
        return self._raw.decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._near, keys.encode())

    def shows(self, words: str, *, within_s: float = 60.0) -> None:
        """Wait until the command has written `words`, since the last call."""
        end = time.monotonic() + within_s
        while words not in self.text:
            assert time.monotonic() < end, self.text[-2000:]
            ready, _, _ = select.select([self._near], [], [], 0.1)
            if ready:
                self._raw += os.read(self._near, 65536)

    def forget(self) -> None:
        """Look only at what is written from now on."""
        self._raw = b""

    def ended(self, *, within_s: float = 30.0) -> int:
        """The exit code; reads what is written meanwhile."""
        end = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text[-2000:]
            ready, _, _ = select.select([self._near], [], [], 0.1)
            if ready:
                self._raw += os.read(self._near, 65536)
        while select.select([self._near], [], [], 0)[0]:
            self._raw += os.read(self._near, 65536)
        return self.process.returncode


def _environment() -> dict[str, str]:
    """This process's, without the size of its own terminal."""
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return own | {"TERM": "xterm-256color"}
