"""Reads values from JSON of other systems. Errors name the place of a value that is not valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class NotAnEvent(ValueError):
    """Not a notification of an object store, or one that lacks a required field."""


def parse(body: bytes | str, place: str = "the body") -> dict[str, Any]:
    """The JSON object in a body. Raises NotAnEvent naming `place`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEvent(
            f"{place} is not JSON; expected a notification of an object store"
        ) from None
    return table(value, place)


def table(value: object, place: str) -> dict[str, Any]:
    """A JSON object. Raises NotAnEvent naming `place`."""
    if not isinstance(value, dict):
        raise NotAnEvent(f"{place} is {_kind(value)}; expected an object")
    return value


def text(parent: Mapping[str, Any], name: str, place: str) -> str:
    """The non-empty text `name` of `parent`. Raises NotAnEvent naming `place`."""
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnEvent(f"{place}.{name} is {_kind(value)}; expected text")
    return _unicode(value, f"{place}.{name} ")


def text_or_none(value: object) -> str | None:
    """The text, or None if it is not text or empty. Raises NotAnEvent if it is not valid Unicode."""
    return _unicode(value) if isinstance(value, str) and value else None


def _unicode(value: str, place: str = "") -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain
        raise NotAnEvent(f"{place}{value!r:.200} is not valid Unicode") from None
    return value


def number(value: object) -> int | None:
    """A whole number, also as decimal text as in protobuf's JSON; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    return "empty" if value == "" else f"a {type(value).__name__}"
