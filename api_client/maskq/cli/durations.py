"""Durations: 90s, 15m, 12h, 30d."""

from __future__ import annotations

import re
from typing import Final

from maskq.errors import InvalidRequest

_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])")


def seconds(text: str) -> float:
    """Seconds in '90s', '15m', '12h', '30d' or '2w'. Raises InvalidRequest."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise InvalidRequest(f"{text!r} is not a valid duration; write 90s, 15m, 12h, 30d or 2w")
    return float(found[1]) * _UNITS_S[found[2]]
