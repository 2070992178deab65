"""Pieces of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NOTICE = "<!-- Written by `python -m tools.reference`. Change the code and run it again. -->"
_DOC = re.compile(r"docs/([\w-]+)\.md")  # how code names a page


def page(title: str, *parts: str) -> str:
    """A whole page; its parts are separated by blank lines."""
    return "\n\n".join((_NOTICE, f"# {title}", *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text and code in backticks."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _DOC.sub(r"[\1.md](../\1.md)", one_line(text)).replace("|", "\\|")
