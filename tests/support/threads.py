"""Threads that a test has started; other tests of the same process may have left theirs."""

from __future__ import annotations

import threading


class StartedThreads:
    """Those that begin after this object is made."""

    def __init__(self) -> None:
        self._others = set(threading.enumerate())

    def named(self, *names: str) -> set[str]:
        """Which of these names living threads have."""
        return {one.name for one in set(threading.enumerate()) - self._others} & set(names)
