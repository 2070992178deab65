"""What `import maskq` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import public_surface
import pytest

import maskq

FILE = Path(__file__).parent / "public_surface.txt"
CHANGED = """the public surface changed:
{}
Tell users in CHANGELOG.md, a line under Unreleased; then write the list anew:
    .venv/bin/python tests/public_surface.py > tests/unit/client/public_surface.txt"""


def test_the_public_surface_is_the_one_written_down() -> None:
    written, now = set(FILE.read_text(encoding="utf-8").splitlines()), set(public_surface.lines())
    changes = [f"{'+' if line in now else '-'} {line}" for line in sorted(written ^ now)]
    if changes:
        pytest.fail(CHANGED.format("\n".join(changes)), pytrace=False)


def test_everything_public_is_there_and_nothing_else() -> None:
    public = {name for name in vars(maskq) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(maskq, name)).__name__ == "module"}
    assert public - modules == set(maskq.__all__)


def test_the_import_brings_nothing_heavy() -> None:
    code = (
        "import sys, maskq;"
        "print([m for m in ('torch','numpy','boto3','botocore','celery','kombu','PIL','transformers')"
        " if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_misspelled_setting_is_an_error() -> None:
    code = "from maskq import Client; Client.from_env()"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"MASKQ_REDIS_ULR": "redis://x", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MASKQ_REDIS_ULR is not a setting of maskq; did you mean MASKQ_REDIS_URL?" in ran.stderr
