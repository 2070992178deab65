"""What all commands that run until they are stopped share.

__init__      exit codes, and the error for a command that cannot start
parent_death  a child process ends with its parent
stop_signal   SIGTERM and Ctrl-C: the first asks to stop, the second to stop at once
stop_times    how long a process may take to stop
health        the file that shows that a process is well
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from maskq.errors import InvalidRequest, MaskqError

# From sysexits.h. A supervisor does not start the process again after EX_CONFIG (78): a setting is
# wrong, or a service refuses what the command needs. It does after EX_SOFTWARE (70).
EX_CONFIG: Final = os.EX_CONFIG
EX_SOFTWARE: Final = 70


class CannotStart(MaskqError):
    """Raised by a command that cannot start until somebody changes its settings or a service."""


@contextmanager
def starting() -> Iterator[None]:
    """Raise CannotStart for an InvalidRequest from the block, which ends the command with EX_CONFIG."""
    try:
        yield
    except InvalidRequest as error:
        raise CannotStart(str(error)) from error
