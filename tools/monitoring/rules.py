"""The rules for Prometheus: the template of the Helm chart with its parameters filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "helm" / "maskq" / "rules"
WRITTEN: Final = ROOT / "deploy" / "prometheus" / "rules" / "maskq.yml"
HEAD: Final = """\
# Written by `python -m tools.monitoring` from deploy/helm/maskq/rules. docs/monitoring.md says how to
# change thresholds; docs/runbooks.md has what to do about each alert.
"""
_NAME = re.compile(r"@(\w+)@")


class UnknownParameter(Exception):
    """A name that parameters.yml does not have."""


def parameters() -> dict[str, str]:
    """Each parameter's default."""
    read = yaml.safe_load((FOLDER / "parameters.yml").read_text(encoding="utf-8"))
    return {name: str(value) for name, value in read.items()}


def template() -> str:
    """The rules with @name@ for each parameter."""
    return (FOLDER / "rules.yml").read_text(encoding="utf-8")


def rules(changed: Mapping[str, str]) -> str:
    """The rules as Prometheus reads them. changed: parameters with another value than their default.

    Raises UnknownParameter.
    """
    values = parameters()
    if unknown := sorted(changed.keys() - values.keys()):
        raise UnknownParameter(
            f"{', '.join(unknown)}: no such parameter. Known: {', '.join(values)}"
        )
    filled = values | dict(changed)
    return HEAD + _NAME.sub(lambda match: filled[match[1]], template())
