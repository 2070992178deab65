"""What is wrong with a request, as one sentence for whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from maskq.contract.places import HIDDEN

# Of a presigned URL: a sentence may end in a log.
_QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")


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
    """Every mistake, naming its field; `shown`: fields that the caller knows by another name."""
    lines = []
    for mistake in forgotten(error.errors(include_url=False)):
        place = ".".join(str(part) for part in mistake["loc"])
        field = (shown or {}).get(place, place)
        field = f"{field}: " if field else ""
        lines.append(f"{field}{mistake['msg']} (got {mistake['input']!r})")
    return _QUERY.sub(rf"\1{HIDDEN}", "; ".join(lines))
