"""How many pixels of a mask are processed at once."""

from __future__ import annotations

from typing import Final

PIXELS: Final = 1 << 19  # counting so many takes some 30 MB
