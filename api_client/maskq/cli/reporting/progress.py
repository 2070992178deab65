"""Progress on stderr: a bar on a terminal, else a line every few seconds, or nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from maskq.inert import one_line, print_error

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_LINE_S: Final = 5.0


class Progress:
    """Shows one counter at a time. Use it in a `with` block, whose end removes the bar.

    `quiet`: shows nothing. `bar_only`: shows nothing elsewhere than on a terminal.
    """

    def __init__(
        self, *, quiet: bool = False, bar_only: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._has_bar = self._stream.isatty() and not quiet
        self._has_lines = not (quiet or bar_only or self._has_bar)
        self._quiet = quiet
        self._bar: Bar | None = None
        self._shown = self._began = time.monotonic()
        self._counted_from = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.clear()

    def begin(self, count: int = 0) -> None:
        """Start another counter at `count`."""
        self.clear()
        self._began, self._counted_from = time.monotonic(), count

    def show(
        self, count: int, what: str, *, of: int | None = None, failed: int = 0, note: str = ""
    ) -> None:
        """Show that `count` are `what` ('submitted'), out of `of` if that is known."""
        if self._has_bar:
            self._draw(count, of, one_line(self._line(count, what, of, failed, note)))
        elif self._has_lines and time.monotonic() - self._shown >= _LINE_S:
            self._shown = time.monotonic()
            print_error(f"maskq: {self._line(count, what, of, failed, note)}", to=self._stream)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            self.clear()
            print_error(f"maskq: {line}", to=self._stream)

    def clear(self) -> None:
        """Remove the bar. The next `show` draws it again."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _line(self, count: int, what: str, of: int | None, failed: int, note: str) -> str:
        rate = (count - self._counted_from) / max(time.monotonic() - self._began, 0.001)
        parts = [f"{count} of {of} {what}" if of else f"{count} {what}"]
        if failed:
            parts.append(f"{failed} failed")
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        return ", ".join([*parts, note] if note else parts)

    def _draw(self, count: int, of: int | None, line: str) -> None:
        if self._bar is None:
            self._bar = _bar(self._stream)
            self._bar.add_task(line, total=of)
            self._bar.start()
        (task,) = self._bar.task_ids
        self._bar.update(task, completed=count, total=of, description=line)


def _bar(stream: TextIO) -> Bar:
    """A bar that leaves stdout and stderr as they are, and disappears at its end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(file=stream, force_terminal=True, highlight=False),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
