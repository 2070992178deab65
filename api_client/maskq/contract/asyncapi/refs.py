"""JSON references between the parts of the document."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def ref(kind: str, name: str) -> Json:
    """A reference to a component: kind is `schemas`, `messages` or `parameters`."""
    return {"$ref": f"#/components/{kind}/{name}"}
