"""Tests with Debian's Prometheus: `make monitoring-test`. Nothing here is in the default run."""

from __future__ import annotations

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """A plain `make test` neither needs Prometheus nor tells that it is missing."""
    return True if "monitoring" not in config.option.markexpr else None
