"""Tests that look at pages in Chromium. `pytest -m browser`; nothing here is in the default run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """A plain `make test` neither needs Chromium nor tells that it is missing."""
    return True if "browser" not in config.option.markexpr else None


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that CHROMIUM names. That it is missing is a failure."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "no chromium on PATH: apt-get install chromium, or name one in CHROMIUM"
    # Without its sandbox, which root and containers cannot have: it shows pages of ours only.
    arguments = ["--no-sandbox"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def pictures() -> Path | None:
    """Where to leave screenshots for people, if SCREENSHOTS names a directory."""
    name = os.environ.get("SCREENSHOTS")
    return Path(name) if name else None
