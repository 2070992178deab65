"""Single keys from the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import Any, Self


class Keyboard:
    """Use it in a `with` block, whose end gives the terminal its former mode back."""

    def __init__(self) -> None:
        self._former: list[Any] | None = None

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            self._former = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._former)

    def key(self, timeout_s: float) -> str:
        """The next key, or '' after `timeout_s`."""
        if self._former is None:
            time.sleep(timeout_s)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
        return os.read(sys.stdin.fileno(), 16).decode(errors="replace") if ready else ""
