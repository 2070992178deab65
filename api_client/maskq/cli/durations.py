"""Durations (90s, 15m, 12h, 30d) and times as they are typed."""

from __future__ import annotations

import re
import time
from datetime import datetime
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


def moment(text: str) -> float:
    """Seconds since the epoch of '2h' (two hours ago) or of an ISO 8601 time. Raises InvalidRequest.

    A time without an offset is in the local time zone.
    """
    if _SPAN.fullmatch(text):
        return time.time() - seconds(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is not a valid time; write 90s, 15m, 12h or 30d for so long ago, or "
            f"2026-01-31T12:00:00Z"
        ) from None
