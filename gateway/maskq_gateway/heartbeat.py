"""A file that is touched every second tells whoever looks that a process is well."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

_EVERY_S = 1.0
_STUCK_S = 60.0  # longer than any step takes that says it is alive


class Heartbeat:
    """Touches a file from the first sign of life on, until none came for a minute."""

    def __init__(self, file: Path | None) -> None:
        """None: nothing is touched."""
        self._file = file
        self._last: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maskq-beat", daemon=True)

    def alive(self) -> None:
        """A sign of life; touches at once."""
        began = self._last is None
        self._last = time.monotonic()
        if began:
            self._touch()

    def still_alive(self) -> None:
        """A sign of life that is not enough to be called well for the first time."""
        if self._last is not None:
            self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._file:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._file:
            self._thread.join()
            self._file.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            if self._last is not None and time.monotonic() - self._last < _STUCK_S:
                self._touch()

    def _touch(self) -> None:
        if self._file:
            self._file.touch()
