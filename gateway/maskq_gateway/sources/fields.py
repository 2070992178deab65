"""Values out of JSON that somebody else wrote; what is not as expected is named by its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NotAnEvent(ValueError):
    """Not a notification of an object store, or one that lacks what it must have."""


def table(value: object, place: str) -> dict[str, Any]:
    """An object of JSON. Raises NotAnEvent naming `place`."""
    if not isinstance(value, dict):
        raise NotAnEvent(f"{place} is {_kind(value)}; expected an object")
    return value


def text(parent: Mapping[str, Any], name: str, place: str) -> str:
    """The text `name` of `parent`, not empty. Raises NotAnEvent naming `place`."""
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnEvent(f"{place}.{name} is {_kind(value)}; expected text")
    return _unicode(value, f"{place}.{name} ")


def text_or_none(value: object) -> str | None:
    """None for what is no text, or empty. Raises NotAnEvent for text that is not valid Unicode."""
    return _unicode(value) if isinstance(value, str) and value else None


def _unicode(value: str, place: str = "") -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        raise NotAnEvent(f"{place}{value!r:.200} is not valid Unicode") from None
    return value


def number(value: object) -> int | None:
    """A whole number, also as decimal text, as protobuf's JSON has it; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    return "empty" if value == "" else f"a {type(value).__name__}"
