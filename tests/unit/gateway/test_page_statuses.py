"""The page's table of statuses against the contract's; no other file of the page lists statuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import maskq_gateway.page
from maskq.contract import TERMINAL, JobStatus
from maskq.contract.statuses import ENDED, RETRYABLE

PAGE = Path(maskq_gateway.page.__file__).parent / "static"
TABLE = re.compile(r"^export const STATUS = \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^  (\w+): \{(.+)\},$", re.MULTILINE)
RETRIED, ENDS = 'retry: "', "isEnded: true"


def entries() -> dict[str, str]:
    table = TABLE.search((PAGE / "format.js").read_text(encoding="utf-8"))
    assert table
    found = {name: text for name, text in ENTRY.findall(table[1]) if "isLocal" not in text}
    assert len(found) > 3
    return found


def test_the_page_knows_every_status_in_order() -> None:
    assert list(entries()) == list(JobStatus)


def test_the_page_ends_and_retries_what_the_contract_does() -> None:
    assert {name for name, text in entries().items() if ENDS in text} == set(TERMINAL)
    assert [name for name, text in entries().items() if RETRIED in text] == list(RETRYABLE)


def test_css_has_every_kind_of_status() -> None:
    css = (PAGE / "page.css").read_text(encoding="utf-8")
    table = (PAGE / "format.js").read_text(encoding="utf-8")
    kinds = set(re.findall(r'kind: "(\w+)"', table)) - {"neutral"}
    assert set(re.findall(r'\.status\[data-kind="(\w+)"\]', css)) == kinds


@pytest.mark.parametrize("status", ENDED)
def test_a_terminal_state_is_named_in_one_file_of_the_page(status: JobStatus) -> None:
    word = re.compile(rf"""["'.]{status}\b|^  {status}: |value="{status}""", re.MULTILINE)
    files = {
        path.name
        for path in PAGE.iterdir()
        if path.suffix in {".js", ".css", ".html"} and word.search(path.read_text(encoding="utf-8"))
    }
    assert files == {"format.js"}
