"""Standard streams that are closed, full, without a reader, or not UTF-8."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO, cast

_kept: list[TextIO] = []  # their destructors would close a file descriptor in use
_CLOSED = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_RDWR}


def prepare() -> None:
    """Escape characters that cannot be encoded, ignore errors on stderr, and reopen closed streams.

    For a closed stream Python has None: output is lost silently, or goes to stdout instead of stderr,
    and the next file that is opened gets the stream's descriptor. A reopened stream fails when used.
    """
    ours = sys.stderr in (None, sys.__stderr__)  # and not a replacement
    for name, flags in _CLOSED.items():
        if getattr(sys, name) is None:
            setattr(sys, name, _placeholder(flags, "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if ours:
        sys.stderr = _forgiving(sys.stderr)


def lost_output() -> str | None:
    """Flush stdout. Returns None, or why it failed; '' if the reader has closed it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        reason: str | None = ""
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        return None
    # The interpreter flushes again at exit, and would print an error.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return reason


def _placeholder(flags: int, mode: str) -> TextIO:
    """Open the lowest free descriptor, which is the stream's; inheritable, as standard streams are."""
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
    """A file that ignores errors of writing."""

    def write(self, data: object) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]
