"""The code of docs/testing.md, as a program and its tests in a folder of their own.

fake/test_fake_surface.py runs the block for a real stack.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from support.pages import ROOT, blocks

from maskq_standalone import pytest_plugin


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with the plugin, which an installation registers by its entry point."""
    is_registered = bool(entry_points(group="pytest11", name="maskq"))
    plugin = [] if is_registered else ["-p", pytest_plugin.__name__]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-q", "-n", "0", "-W", "error", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_testing_page_is_a_program_whose_tests_pass(tmp_path: Path) -> None:
    program, *tests = (one.text for one in blocks("docs/testing.md") if one.kind == "")
    (tmp_path / "shop.py").write_text(program)
    for number, text in enumerate(tests):  # each block stands alone
        (tmp_path / f"test_shop_{number}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    ran = run_pytest(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{''.join(tests).count('def test_')} passed" in ran.stdout


def test_maskq_stack_names_the_extra_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['ministack'] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(maskq_stack): pass\n")
    ran = run_pytest(tmp_path)
    assert ran.returncode == 1
    assert "the fixture maskq_stack needs ministack" in ran.stdout
    assert "pip install 'maskq[standalone]'" in ran.stdout


def test_the_plugin_imports_nothing_of_maskq_at_the_start_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n"
        "    loaded = [name for name in sys.modules if name.partition('.')[0] in ('maskq', 'torch')]\n"
        "    assert loaded == []\n"
    )
    ran = run_pytest(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert import_module(project["entry-points"]["pytest11"]["maskq"]) is pytest_plugin
