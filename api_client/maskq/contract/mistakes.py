"""What is wrong with a request, as one sentence for whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import ValidationError

from maskq.contract.places import HIDDEN

# Of a presigned URL: a sentence may end in a log.
_QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")


def sentence(error: ValidationError, shown: Mapping[str, str] | None = None) -> str:
    """Every mistake, naming its field; `shown`: fields that the caller knows by another name."""
    lines = []
    for mistake in error.errors(include_url=False):
        place = ".".join(str(part) for part in mistake["loc"])
        field = (shown or {}).get(place, place)
        field = f"{field}: " if field else ""
        lines.append(f"{field}{mistake['msg']} (got {mistake['input']!r})")
    return _QUERY.sub(rf"\1{HIDDEN}", "; ".join(lines))
