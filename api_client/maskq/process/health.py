"""A health file: a file that a process touches every second while it is well."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final, Self

FRESH_S: Final = 5.0  # a file that was touched within this time counts as fresh
_EVERY_S: Final = 1.0
_STUCK_S: Final = 60.0  # longer than any step between two signs of life


class HealthFile:
    """The file that MASKQ_HEALTH_FILE names."""

    def __init__(self, path: Path | None) -> None:
        """path: None: nothing is touched."""
        self._path = path

    def __bool__(self) -> bool:
        return self._path is not None

    def touch(self) -> None:
        """Record that the process is well now."""
        if self._path:
            self._path.touch()

    def remove(self) -> None:
        """Record that the process is not up."""
        if self._path:
            self._path.unlink(missing_ok=True)

    def is_fresh(self) -> bool:
        """Whether a process touched it within the last FRESH_S seconds."""
        if not self._path:
            return False
        try:
            return time.time() - self._path.stat().st_mtime < FRESH_S
        except FileNotFoundError:
            return False


class Heartbeat:
    """Touches a health file from the first sign of life on, until there was none for a minute."""

    def __init__(self, file: HealthFile) -> None:
        self._file = file
        self._last: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maskq-heartbeat", daemon=True)

    def alive(self) -> None:
        """A sign of life; the first one touches the file at once."""
        is_first = self._last is None
        self._last = time.monotonic()
        if is_first:
            self._file.touch()

    def still_alive(self) -> None:
        """A sign of life that counts only after a first call of `alive`."""
        if self._last is not None:
            self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._file:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._file:
            self._thread.join()
            self._file.remove()

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            if self._last is not None and time.monotonic() - self._last < _STUCK_S:
                self._file.touch()
