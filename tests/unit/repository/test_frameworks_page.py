"""The pieces of code in docs/frameworks.md are those of the examples, which tests run."""

from __future__ import annotations

import pytest
from support.pages import ROOT, Block, blocks

EXAMPLES = {path.name: path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize(
    "block", blocks("docs/frameworks.md"), ids=lambda one: one.text[:40].strip()
)
def test_piece_of_code_is_in_an_example(block: Block) -> None:
    assert any(block.text in text for text in EXAMPLES.values())
