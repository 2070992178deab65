"""Validation errors as sentences for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from maskq.inert import without_secrets

_COLLECTIONS: Final = frozenset({"frozen_set_type", "list_type", "set_type", "tuple_type"})


def without_tracebacks(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The same errors; the exceptions in them no longer hold their tracebacks.

    pydantic keeps a validator's exception where Python's garbage collector cannot see it. The traceback
    holds the local variables of every caller, and one of them is often the exception that was raised
    because of the error. That is a cycle which is never freed: 400 KB for each refused request.
    """
    for error in errors:
        raised = error.get("ctx", {}).get("error")
        while isinstance(raised, BaseException):
            raised.__traceback__, raised = None, raised.__context__
    return errors


def sentence(error: ValidationError, names: Mapping[str, str] | None = None) -> str:
    """Every error with the name of its field; secrets in URLs are hidden.

    names: field -> the caller's name for it; default: the field's own name.
    """
    lines = []
    for details in without_tracebacks(error.errors(include_url=False)):
        path = ".".join(str(part) for part in details["loc"])
        name = (names or {}).get(path, path)
        prefix = f"{name}: " if name else ""
        lines.append(f"{prefix}{_said(details)} (got {details['input']!r})")
    return without_secrets("; ".join(lines))


def _said(details: ErrorDetails) -> str:
    """pydantic names the Python type that a field has, which a caller over HTTP does not know."""
    if details["type"] not in _COLLECTIONS:
        return details["msg"].removeprefix("Value error, ")
    given = details["input"]
    example = f", such as [{given!r}]" if isinstance(given, str) else ""
    return f"give a list of values{example}"
