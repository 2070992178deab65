"""Writes docs/reference from the code: settings, outputs, errors, events, exit codes, commands.

    .venv/bin/python -m tools.reference

Each description is a docstring below a setting or a member of an enum, a pydantic description, or
the help of a command. tests/unit/repository/test_reference_pages.py fails if a page is out of date.
"""

from tools.reference.pages import PAGES

__all__ = ["PAGES"]
