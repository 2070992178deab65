"""The dashboard's JSON by the types that Grafana's makers generate from its schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from tools.monitoring.dashboard import dashboard

pytestmark = pytest.mark.monitoring

register_default_plugins()


def read_by_grafana(model: dict[str, Any]) -> dict[str, Any]:
    """The fields that the schema knows, for the panel's kind and the query's kind."""
    read: dict[str, Any] = json.loads(
        json.dumps(Dashboard.from_json(model), cls=JSONEncoder, sort_keys=True)
    )
    return read


def missing(written: Any, read: Any, path: str = "") -> list[str]:
    """Where `read` lacks what was written, or has another value."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [
            one
            for name, value in written.items()
            for one in missing(value, read.get(name), f"{path}.{name}")
        ]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [
            one
            for number, (value, other) in enumerate(zip(written, read, strict=True))
            for one in missing(value, other, f"{path}[{number}]")
        ]
    return [] if written == read else [path]


def test_every_field_is_one_of_grafana_s_schema() -> None:
    model = json.loads(dashboard())
    assert missing(model, read_by_grafana(model)) == []


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("panels", 1),
        ("panels", 1, "options"),
        ("panels", 8, "options", "legend"),
        ("panels", 8, "fieldConfig", "defaults", "custom"),
        ("panels", 8, "targets", 0),
        ("templating", "list", 1),
    ],
)
def test_a_misspelled_field_would_be_seen(path: tuple[str | int, ...]) -> None:
    model = json.loads(dashboard())
    part = model
    for step in path:
        part = part[step]
    part["misspelled"] = 1
    assert len(missing(model, read_by_grafana(model))) == 1
