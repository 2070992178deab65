"""Memory that malloc keeps goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim_malloc() -> None:
    """Free pages, also between blocks in use; in 3 to 11 ms of a worker of 430 MiB.

    By itself malloc gives back what lies at its end. Where several large images meet, what a small
    block lies above stays, and a worker's memory rises in steps. Only glibc's; others are let be.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
