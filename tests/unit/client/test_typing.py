"""Type checkers accept a program that uses the whole public surface, and refuse its mistakes."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import maskq
from maskq import AsyncClient, Client, Mode, Output, Priority
from maskq.contract.options import ModeName, PriorityName
from maskq.contract.outputs import OutputName

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests/support/typed_program.py"


def checked(*command: str, where: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=where, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_mypy_strict_accepts_the_program_and_needs_every_ignore(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nmypy_path = {ROOT / 'api_client'}\n")
    checked("mypy", "--strict", "--config-file", str(config), str(PROGRAM), where=tmp_path)


@pytest.mark.other_tools
def test_pyright_strict_accepts_the_program_and_needs_every_ignore(tmp_path: Path) -> None:
    (tmp_path / PROGRAM.name).write_text(PROGRAM.read_text())
    settings = {
        "include": [PROGRAM.name],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(ROOT / "api_client")],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    checked("pyright", "--pythonpath", sys.executable, where=tmp_path)


def test_the_program_uses_every_method_of_the_client() -> None:
    """Those that a gateway's client has not are left out."""
    program = PROGRAM.read_text()
    only_directly = {"create_api_key", "api_keys", "revoke_api_key", "set_default_model",
                     "retire_model", "delete_tenant", "set_tenant",
                     "unset_tenant", "tenant", "tenants"}  # fmt: skip
    for owner in (Client, maskq.Job, maskq.Batch, maskq.Result):
        for name, _ in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_") and name not in only_directly:
                assert re.search(rf"\.{name}\(", program), f"{owner.__name__}.{name}"


def test_literals_are_the_values_of_the_enumerations() -> None:
    assert set(get_args(OutputName)) == set(map(str, Output))
    assert set(get_args(ModeName)) == set(map(str, Mode))
    assert set(get_args(PriorityName)) == set(map(str, Priority))


def test_segment_takes_what_submit_takes() -> None:
    for owner in (Client, AsyncClient):
        submit, segment = (
            dict(inspect.signature(method).parameters) for method in (owner.submit, owner.segment)
        )
        assert segment.pop("timeout")
        assert segment == submit
