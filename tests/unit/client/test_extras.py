"""What is said about extras is what pyproject.toml has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from maskq.extras import MODULES, NotInstalled, missing, require

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Those of another name than their module.
DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "prometheus_client": "prometheus-client",
    "opentelemetry": "opentelemetry-sdk",
}


@pytest.mark.parametrize("extra", MODULES)
def test_each_module_comes_with_its_extra(extra: str) -> None:
    brought = {re.split(r"[\[<>=;]", line)[0].strip().lower() for line in EXTRAS[extra]}
    assert {DISTRIBUTIONS.get(module, module) for module in MODULES[extra]} <= brought


def test_an_import_that_failed_is_told_by_its_extra() -> None:
    reason = missing(ModuleNotFoundError("…", name="uvicorn.config"))
    assert "maskq[gateway]" in str(reason)
    assert missing(ModuleNotFoundError("…", name="a_bug_of_ours")) is None


def test_what_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    require("gateway", "a test")
    monkeypatch.setitem(MODULES, "gateway", ("fastapi", "not_there_at_all"))
    with pytest.raises(NotInstalled, match=r"a test needs not_there_at_all.*maskq\[gateway\]"):
        require("gateway", "a test")
