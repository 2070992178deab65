"""The dashboard's fields and values by the types that Grafana's makers generate from its schema."""

from __future__ import annotations

import json
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from tools.monitoring.dashboard import dashboard

pytestmark = pytest.mark.monitoring


def read_by_grafana(model: dict[str, Any]) -> dict[str, Any]:
    """The fields that the schema knows, for the panel's kind and the query's kind."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    read: dict[str, Any] = json.loads(
        json.dumps(as_dashboard(model), cls=JSONEncoder, sort_keys=True)
    )
    return read


def as_dashboard(model: dict[str, Any]) -> Any:
    """As an object of the SDK, which only `make monitoring-test` installs."""
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return Dashboard.from_json(model)


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


def wrong(value: Any, wanted: Any, path: str = "") -> list[str]:
    """Where a value is not of the type that the schema wants."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted in (Any, object):  # of the panel's or the query's kind
        return of_object(value, path) if hasattr(value, "to_json") else []
    if wanted is float and isinstance(value, int):
        return []
    if origin in (Union, UnionType):
        found = [wrong(value, one, path) for one in inner]
        return [] if [] in found else max(found, key=len)
    if origin is Literal:
        return [] if value in inner else [path]
    if origin is list and isinstance(value, list):
        return [x for i, one in enumerate(value) for x in wrong(one, inner[0], f"{path}[{i}]")]
    if origin is dict and isinstance(value, dict):
        return [x for name, one in value.items() for x in wrong(one, inner[1], f"{path}.{name}")]
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return [] if value in {one.value for one in wanted} else [path]
    if not isinstance(wanted, type) or not isinstance(value, wanted):
        return [path]
    return of_object(value, path) if hasattr(value, "to_json") else []


def of_object(read: Any, path: str = "") -> list[str]:
    """As `wrong`, for all fields of one of the schema's objects."""
    hints = get_type_hints(type(read))
    return [
        x
        for name, hint in hints.items()
        for x in wrong(getattr(read, name), hint, f"{path}.{name}")
    ]


def faults(model: dict[str, Any]) -> list[str]:
    return missing(model, read_by_grafana(model)) + of_object(as_dashboard(model))


def test_every_field_is_one_of_grafana_s_schema() -> None:
    assert faults(json.loads(dashboard())) == []


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ((), "misspelled", 1),
        (("panels", 1), "misspelled", 1),
        (("panels", 1, "options"), "misspelled", 1),
        (("panels", 8, "options", "legend"), "misspelled", 1),
        (("panels", 8, "fieldConfig", "defaults", "custom"), "misspelled", 1),
        (("panels", 8, "targets", 0), "misspelled", 1),
        (("templating", "list", 1), "misspelled", 1),
        (("panels", 1, "gridPos"), "w", "wide"),
        (("panels", 1, "options"), "graphMode", "wave"),
        (("panels", 8, "options", "legend"), "placement", "top"),
        (("panels", 8, "targets", 0), "instant", "no"),
        (("templating", "list", 1), "type", "queries"),
    ],
)
def test_a_fault_would_be_seen(path: tuple[str | int, ...], name: str, value: object) -> None:
    model = json.loads(dashboard())
    part = model
    for step in path:
        part = part[step]
    part[name] = value
    assert faults(model)
