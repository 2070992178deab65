"""How much of a mask is looked at at once."""

from __future__ import annotations

from typing import Final

PIXELS: Final = 1 << 19  # what is counted in so many takes some 30 MB
