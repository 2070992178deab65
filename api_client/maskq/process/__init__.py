"""What every command shares that stays up: how it says that starting it again will not help."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from maskq.errors import InvalidRequest, MaskqError

# sysexits.h, 78: a mistake in the settings, or a service that refuses what is needed. Starting again
# will not help, so supervisors do not.
EX_CONFIG: Final = os.EX_CONFIG


class CannotStart(MaskqError):
    """Raised by a command that stays up, for what only somebody who changes something can help."""


@contextmanager
def starting() -> Iterator[None]:
    """A mistake in the settings that is met meanwhile ends the command with EX_CONFIG."""
    try:
        yield
    except InvalidRequest as error:
        raise CannotStart(str(error)) from error
