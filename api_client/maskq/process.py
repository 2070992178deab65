"""What processes that stay up share."""

from __future__ import annotations

from typing import Final

# sysexits.h: a mistake in the settings, or a service that refuses what is needed. Starting again will
# not help, so supervisors do not.
EX_CONFIG: Final = 78
