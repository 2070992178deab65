"""What is wrong with a request, as one sentence for whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from maskq.inert import without_secrets


def forgotten(mistakes: list[ErrorDetails]) -> list[ErrorDetails]:
    """The same, after each validator's own exception has let go of its frames.

    pydantic's error holds that exception where Python's garbage collector cannot look. Its frames hold
    their callers' variables, among them, sooner or later, what was raised because of the error: a cycle
    that is never freed, 400 KB for each request that a worker refuses.
    """
    for mistake in mistakes:
        raised = mistake.get("ctx", {}).get("error")
        while isinstance(raised, BaseException):
            raised.__traceback__, raised = None, raised.__context__
    return mistakes


def sentence(error: ValidationError, shown: Mapping[str, str] | None = None) -> str:
    """Every mistake, naming its field, without secrets of URLs.

    shown: names of fields as the caller knows them.
    """
    lines = []
    for mistake in forgotten(error.errors(include_url=False)):
        place = ".".join(str(part) for part in mistake["loc"])
        field = (shown or {}).get(place, place)
        field = f"{field}: " if field else ""
        lines.append(f"{field}{mistake['msg']} (got {mistake['input']!r})")
    return without_secrets("; ".join(lines))
