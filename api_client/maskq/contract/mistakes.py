"""What is wrong with a request, as one sentence for whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError


def sentence(error: ValidationError, shown: Mapping[str, str] | None = None) -> str:
    """Every mistake, naming its field; `shown`: fields that the caller knows by another name."""
    lines = []
    for mistake in error.errors(include_url=False):
        place = ".".join(str(part) for part in mistake["loc"])
        field = (shown or {}).get(place, place)
        lines.append(f"{field}: {mistake['msg']} (got {mistake['input']!r})")
    return "; ".join(lines)
