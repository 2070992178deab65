"""A process that a supervisor started ends with it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from maskq.errors import InvalidRequest

_SIGNAL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def end_with(process: int) -> None:
    """Ask for SIGTERM at the end of `process`, our parent (Linux). Raises InvalidRequest where it is
    not our parent: it has ended already, or the number is wrong."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGTERM)
    if os.getppid() != process:
        raise InvalidRequest(f"process {process} is not the parent of this one, or no longer")
