"""The rules that docs/triggers.md shows are valid."""

from __future__ import annotations

from pathlib import Path

from support.pages import blocks

from maskq.contract.locations import S3Uri
from maskq_gateway.rules.rule import Rules


def test_rules_of_the_page_load(tmp_path: Path) -> None:
    (rules,) = (one.text for one in blocks("docs/triggers.md") if one.language == "toml")
    file = tmp_path / "uploads.toml"
    file.write_text(rules, encoding="utf-8")
    assert Rules.load(file, own_output=S3Uri("maskq", "maskq"))
