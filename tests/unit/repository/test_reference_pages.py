"""docs/reference is what the code says: settings, outputs, errors, events, exit codes, commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.reference import PAGES
from tools.reference.docstrings import Undescribed, describe
from tools.reference.settings import names

from maskq.contract import FailureCode, Output
from maskq.settings import Settings, known

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_page_equals_what_the_code_says(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "out of date: run .venv/bin/python -m tools.reference"


def test_every_known_setting_is_described() -> None:
    assert names() == known()


@pytest.mark.parametrize(("page", "kind"), [("errors.md", FailureCode), ("outputs.md", Output)])
def test_page_names_every_member(page: str, kind: type[FailureCode | Output]) -> None:
    text = PAGES[page]()
    assert [one.value for one in kind if f"| `{one.value}` |" not in text] == []


def test_describe_names_what_has_no_docstring() -> None:
    with pytest.raises(Undescribed, match=r"Settings\.model_config has no description"):
        describe(Settings, "model_config")
