"""Why a call was not made, or brought no answer."""

from __future__ import annotations


class Refused(Exception):
    """The URL must not be called; the text says why."""


class Unreachable(Exception):
    """The URL may be called, but no valid HTTP answer came."""


class TooLong(Exception):
    """The answer has more bytes than the caller takes; `size`: its Content-Length, if it has one."""

    def __init__(self, size: int | None) -> None:
        super().__init__(size)
        self.size = size
