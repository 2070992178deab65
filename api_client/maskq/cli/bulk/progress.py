"""Progress on stderr: one line that is rewritten on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from maskq.inert import overwrite_line, print_error

_REWRITE_S = 0.2
_LINE_S = 5.0
_WIDTH = 24  # of the bar


class Progress:
    """Shows one counter at a time. `quiet`: shows nothing."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._rewrites = self._stream.isatty()
        self._shown = time.monotonic()
        self._began = time.monotonic()
        self._drawn = False
        self._counted_from = 0

    def begin(self, count: int = 0) -> None:
        """Start another counter at `count`."""
        self._began, self._counted_from = time.monotonic(), count

    def show(
        self, count: int, what: str, *, of: int | None = None, failed: int = 0, note: str = ""
    ) -> None:
        """Show that `count` are `what` ('submitted'), out of `of` if that is known."""
        now = time.monotonic()
        pause_s = _REWRITE_S if self._rewrites else _LINE_S
        if self._quiet or now - self._shown < pause_s:
            return
        self._shown = now
        rate = (count - self._counted_from) / max(now - self._began, 0.001)
        parts = [f"{count} of {of} {what}" if of else f"{count} {what}"]
        if failed:
            parts.append(f"{failed} failed")
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        line = ", ".join([*parts, note] if note else parts)
        if not self._rewrites:
            print_error(f"maskq: {line}", to=self._stream)
            return
        overwrite_line(f"{_bar(count, of)}{line}", to=self._stream)
        self._drawn = True

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            self.clear()
            print_error(f"maskq: {line}", to=self._stream)

    def clear(self) -> None:
        """Remove the line that is rewritten."""
        if self._drawn:
            overwrite_line(to=self._stream)
            self._drawn = False


def _bar(count: int, of: int | None) -> str:
    if not of:
        return ""
    done = _WIDTH * count // of
    return f"[{'#' * done}{'.' * (_WIDTH - done)}] "
