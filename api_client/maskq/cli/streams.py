"""Standard streams as they may be: closed, full, without a reader, of another encoding."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO, cast

_kept: list[TextIO] = []  # whose end would close the file that another stream writes to
_CLOSED = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_RDWR}


def prepare() -> None:
    """No character stops a line, no lost diagnosis stops a command, and what is closed fails when used.

    Python has None for a closed stream: what is printed there is lost without a word, or goes to
    stdout instead of stderr. And the next file that is opened would get its number.
    """
    ours = sys.stderr in (None, sys.__stderr__)  # and not what a program put in its place
    for name, flags in _CLOSED.items():
        if getattr(sys, name) is None:
            setattr(sys, name, _placeholder(flags, "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if ours:
        sys.stderr = _forgiving(sys.stderr)


def lost_output() -> str | None:
    """Write what stdout still holds; why that cannot be done, or None. '': its reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        reason: str | None = ""
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        return None
    # The interpreter flushes once more at its end, and would complain.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return reason


def _placeholder(flags: int, mode: str) -> TextIO:
    """On the lowest free number, which is the stream's own; inherited, as a standard stream is."""
    number = os.open(os.devnull, flags)
    os.set_inheritable(number, True)
    stream = os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace")
    return cast("TextIO", stream)


def _forgiving(stream: TextIO) -> TextIO:
    _kept.append(stream)
    return io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


class _Forgiving(io.FileIO):
    """A file for diagnostics: an error while writing one is ignored."""

    def write(self, data: object) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]
